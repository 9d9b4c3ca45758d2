// Einsum two operands at a time, by matrix products. The pair whose result is smallest goes first; what
// only one of the two has and nobody else needs is summed away before; the labels that are left fall into
//
//   batch: in both, needed later    m: in A only    n: in B only    k: in both, not needed later
//
// and A [batch, m, k] times B [batch, k, n] is a batch of products. Operands that do not lie that way (or
// transposed, which the product takes) are copied first.
#include <algorithm>
#include <numeric>

#include "kernels/layout_moves.h"
#include "kernels/matmul.h"
#include "kernels/onednn.h"
#include "libds/ops/common.h"
#include "libds/ops/einsum_equation.h"

namespace ds::ops {
namespace {

using kernels::EinsumSpace;
using kernels::GemmShape;
using kernels::StridedCopy;
using kernels::onednn::Program;

// Less work than this per matrix is done faster by the plain loop than by a product.
constexpr int64_t kLeastProduct = 64;

bool has(const Labels& list, Label label) { return std::find(list.begin(), list.end(), label) != list.end(); }

// Where a term lies: an operand, the output, or the workspace from `offset` bytes on.
struct Place {
  enum Kind { kOperand, kOutput, kScratch } kind = kScratch;
  size_t operand = 0, offset = 0;
};

struct Term {
  Labels labels;  // of size other than 1
  std::vector<int64_t> stride;
  Place place;
  int64_t stride_of(Label label) const {
    const auto it = std::find(labels.begin(), labels.end(), label);
    return it == labels.end() ? 0 : stride[static_cast<size_t>(it - labels.begin())];
  }
};

struct Step {
  enum Kind { kSum, kCopy, kProduct } kind = kSum;
  std::vector<Place> from;
  Place to;
  EinsumSpace space{};
  StridedCopy copy{};
  GemmShape gemm{};
  int64_t batch = 1;
  std::vector<int64_t> a_offset{}, b_offset{};
  std::shared_ptr<Program> program{};  // null: the portable product
};

class Planner {
 public:
  Planner(const Equation& e, const KernelQuery& q) : query_(q), element_(dtype_size(q.out(0).dtype)) {
    std::vector<Shape> shapes;
    for (const TensorDesc& d : q.inputs) shapes.push_back(d.shape);
    sizes_ = label_sizes(e, shapes);
    for (Label label : e.output)
      if (sizes_.of(label) != 1) output_.push_back(label);
    for (size_t o = 0; o < shapes.size(); ++o) {
      Term t;
      t.place = {Place::kOperand, o, 0};
      const Shape steps = strides_of(shapes[o]);
      for (size_t a = 0; a < steps.size(); ++a) {
        if (shapes[o][a] == 1) continue;  // broadcast, or of size one everywhere
        const auto it = std::find(t.labels.begin(), t.labels.end(), e.operands[o][a]);
        if (it == t.labels.end()) {
          t.labels.push_back(e.operands[o][a]);
          t.stride.push_back(steps[a]);
        } else {
          t.stride[static_cast<size_t>(it - t.labels.begin())] += steps[a];
        }
      }
      terms_.push_back(std::move(t));
    }
    while (terms_.size() > 1) combine_best();
    finish();
  }

  std::vector<Step> steps;
  size_t workspace = 0;

 private:
  int64_t count(const Labels& labels) const {
    int64_t n = 1;
    for (Label label : labels) n = checked_mul(n, sizes_.of(label));
    return n;
  }
  Place scratch(size_t bytes) {
    const Place p{Place::kScratch, 0, workspace};
    workspace += (bytes + 63) / 64 * 64;
    return p;
  }
  Term contiguous(Labels labels, Place place) const {
    Shape shape;
    for (Label label : labels) shape.push_back(sizes_.of(label));
    return {std::move(labels), strides_of(shape), place};
  }
  Term fresh(Labels labels, bool last) {
    const size_t bytes = static_cast<size_t>(count(labels)) * element_;
    return contiguous(std::move(labels), last ? Place{Place::kOutput} : scratch(bytes));
  }
  bool lies_as(const Term& t, const Labels& labels) const {
    return t.stride == contiguous(labels, {}).stride && t.labels == labels;
  }

  bool needed(Label label, size_t a, size_t b) const {
    if (has(output_, label)) return true;
    for (size_t i = 0; i < terms_.size(); ++i)
      if (i != a && i != b && has(terms_[i].labels, label)) return true;
    return false;
  }
  // In the order of the output; what it lacks goes last.
  Labels sorted(Labels labels) const {
    std::stable_sort(labels.begin(), labels.end(), [&](Label x, Label y) {
      return std::find(output_.begin(), output_.end(), x) < std::find(output_.begin(), output_.end(), y);
    });
    return labels;
  }
  Labels result_of(size_t a, size_t b) const {
    Labels out;
    for (size_t i : {a, b})
      for (Label label : terms_[i].labels)
        if (needed(label, a, b) && !has(out, label)) out.push_back(label);
    return sorted(out);
  }

  // `to`, from the product of `from`, summed over all labels that it lacks.
  void add_sum(const std::vector<const Term*>& from, const Term& to) {
    Step s;
    s.to = to.place;
    Labels labels = to.labels;
    for (const Term* t : from)
      for (Label label : t->labels)
        if (!has(labels, label)) labels.push_back(label);
    for (Label label : labels) s.space.size.push_back(sizes_.of(label));
    s.space.out_rank = to.labels.size();
    for (const Term* t : from) {
      s.from.push_back(t->place);
      std::vector<int64_t> stride;
      for (Label label : labels) stride.push_back(t->stride_of(label));
      s.space.stride.push_back(std::move(stride));
    }
    steps.push_back(std::move(s));
  }

  void add_copy(const Term& from, const Term& to) {
    Step s;
    s.kind = Step::kCopy;
    s.from = {from.place};
    s.to = to.place;
    std::vector<int64_t> size, src;
    for (Label label : to.labels) {
      size.push_back(sizes_.of(label));
      src.push_back(from.stride_of(label));
    }
    s.copy =
        kernels::make_strided_copy(static_cast<int>(size.size()), size.data(), src.data(), to.stride.data());
    steps.push_back(std::move(s));
  }

  // Sums away what only this term of the pair has and nobody needs.
  void reduce(size_t i, size_t other) {
    Labels kept;
    for (Label label : terms_[i].labels)
      if (has(terms_[other].labels, label) || needed(label, i, other)) kept.push_back(label);
    if (kept.size() == terms_[i].labels.size()) return;
    Term sum = fresh(kept, false);
    add_sum({&terms_[i]}, sum);
    terms_[i] = std::move(sum);
  }

  // The operand as [batch, rows, columns]; `transposed` when it lies as [batch, columns, rows].
  Term packed(const Term& t, const Labels& batch, const Labels& rows, const Labels& columns,
              bool& transposed) {
    const auto joined = [&](const Labels& x, const Labels& y) {
      Labels all = batch;
      all.insert(all.end(), x.begin(), x.end());
      all.insert(all.end(), y.begin(), y.end());
      return all;
    };
    transposed = false;
    if (lies_as(t, joined(rows, columns))) return t;
    transposed = lies_as(t, joined(columns, rows));
    if (transposed) return t;
    Term copy = fresh(joined(rows, columns), false);
    add_copy(t, copy);
    return copy;
  }

  void combine_best() {
    size_t a = 0, b = 1;
    int64_t least = -1;
    for (size_t i = 0; i < terms_.size(); ++i)
      for (size_t j = i + 1; j < terms_.size(); ++j) {
        const int64_t n = count(result_of(i, j));
        if (least >= 0 && n >= least) continue;
        least = n;
        a = i;
        b = j;
      }
    reduce(a, b);
    reduce(b, a);
    const bool last = terms_.size() == 2;
    Labels result = result_of(a, b), batch, m, n, k;
    for (Label label : terms_[a].labels) {
      const bool both = has(terms_[b].labels, label), later = needed(label, a, b);
      (both ? (later ? batch : k) : m).push_back(label);
    }
    for (Label label : terms_[b].labels)
      if (!has(terms_[a].labels, label)) n.push_back(label);
    batch = sorted(batch);
    m = sorted(m);
    n = sorted(n);
    Term out;
    if (k.empty() || checked_mul(checked_mul(count(m), count(n)), count(k)) < kLeastProduct) {
      out = fresh(result, last);
      add_sum({&terms_[a], &terms_[b]}, out);
    } else {
      Labels swapped = batch;
      swapped.insert(swapped.end(), n.begin(), n.end());
      swapped.insert(swapped.end(), m.begin(), m.end());
      if (swapped == result) {
        std::swap(a, b);
        std::swap(m, n);
      }
      out = add_product(terms_[a], terms_[b], batch, m, n, k, result, last);
      if (a > b) std::swap(a, b);
    }
    terms_.erase(terms_.begin() + static_cast<std::ptrdiff_t>(b));
    terms_[a] = std::move(out);
  }

  Term add_product(const Term& a, const Term& b, const Labels& batch, const Labels& m, const Labels& n,
                   const Labels& k, const Labels& result, bool last) {
    Step s;
    s.kind = Step::kProduct;
    const Term left = packed(a, batch, m, k, s.gemm.trans_a), right = packed(b, batch, k, n, s.gemm.trans_b);
    Labels labels = batch;
    labels.insert(labels.end(), m.begin(), m.end());
    labels.insert(labels.end(), n.begin(), n.end());
    Term out = fresh(labels, last && labels == result);
    s.from = {left.place, right.place};
    s.to = out.place;
    s.batch = count(batch);
    s.gemm.m = count(m);
    s.gemm.n = count(n);
    s.gemm.k = count(k);
    if (query_.out(0).dtype == DType::kF32 && query_.isa >= Isa::kAvx2) {
      kernels::onednn::MatMulRequest request;
      request.shape = s.gemm;
      request.batch = s.batch;
      std::string why;
      s.program = kernels::onednn::matmul(request, why);
    }
    if (s.program) program_bytes_ = std::max(program_bytes_, s.program->workspace_bytes());
    for (int64_t i = 0; i < s.batch; ++i) {
      s.a_offset.push_back(i * s.gemm.m * s.gemm.k);
      s.b_offset.push_back(i * s.gemm.k * s.gemm.n);
    }
    steps.push_back(std::move(s));
    return out;
  }

  void finish() {
    const Term& t = terms_[0];
    if (t.place.kind != Place::kOutput) {
      const Term out = contiguous(output_, {Place::kOutput});
      if (t.labels.size() == output_.size())
        add_copy(t, out);
      else
        add_sum({&t}, out);
    }
    program_at = workspace;
    workspace += program_bytes_;
  }

  const KernelQuery& query_;
  size_t element_, program_bytes_ = 0;
  LabelSizes sizes_;
  Labels output_;
  std::vector<Term> terms_;

 public:
  size_t program_at = 0;  // workspace of the programs, which run one after the other
};

class ContractionKernel final : public Kernel {
 public:
  ContractionKernel(const Equation& e, const KernelQuery& q) {
    Planner plan(e, q);
    steps_ = std::move(plan.steps);
    workspace_ = plan.workspace;
    program_at_ = plan.program_at;
  }
  size_t workspace_bytes() const override { return workspace_; }
  void run(const KernelContext& c) override {
    dispatch_float(c.output(0).dtype(), [&](auto tag) {
      for (const Step& s : steps_) run_step<decltype(tag)>(s, c);
    });
  }

 private:
  template <typename T>
  static T* at(const Place& p, const KernelContext& c) {
    if (p.kind == Place::kOutput) return c.output(0).mutable_data<T>();
    if (p.kind == Place::kOperand) return c.input(p.operand).mutable_data<T>();  // only read
    return reinterpret_cast<T*>(c.workspace() + p.offset);
  }

  template <typename T>
  void run_step(const Step& s, const KernelContext& c) const {
    std::vector<const T*> from;
    for (const Place& p : s.from) from.push_back(at<T>(p, c));
    T* to = at<T>(s.to, c);
    if (s.kind == Step::kSum) {
      kernels::einsum<T>(s.space, from.data(), to);
    } else if (s.kind == Step::kCopy) {
      kernels::strided_copy(s.copy, sizeof(T), from[0], to);
    } else if (s.program) {
      const void* operands[] = {from[0], from[1], nullptr};
      s.program->run(operands, to, c.workspace() + program_at_);
    } else {
      kernels::gemm<T>(s.gemm, s.batch, T(1), from[0], s.a_offset.data(), from[1], s.b_offset.data(), false,
                       to);
    }
  }

  std::vector<Step> steps_;
  size_t workspace_ = 0, program_at_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> make_contraction(const Equation& e, const KernelQuery& query) {
  return std::make_unique<ContractionKernel>(e, query);
}

}  // namespace ds::ops
