// TransientPages: transient copies of deferred content (Tensor::transient()) take turns in the same pages.
//
// Whoever packs many weights copies each of them out of a file for the moment. In pages of its own, every such copy
// costs a page fault for each 4 KiB, more than the copying; while a TransientPages lives in a thread, pages
// that one copy made there leaves are kept for the next one that fits. They go back with the outermost TransientPages.
// Scopes nest, and each belongs to one thread.
#pragma once

namespace ds {

class TransientPages {
 public:
  TransientPages();
  ~TransientPages();
  TransientPages(const TransientPages&) = delete;
  TransientPages& operator=(const TransientPages&) = delete;
};

}  // namespace ds
