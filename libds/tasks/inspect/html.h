// Parts of the page that inspection_html() writes.
#pragma once

#include <string>
#include <string_view>

#include "libds/base/html_text.h"
#include "libds/tasks/inspect/inspect.h"
#include "libds/tasks/inspect/views.h"

namespace ds::page {

extern const char* const kStyle;
extern const char* const kScript;

inline std::string escaped(std::string_view text) { return html_escaped(text); }

// Colour class of an operator: conv, mat, norm, act, pool, quant, rnn, ctl, move or math.
std::string_view kind_of(const Node& node);

// "1×64×56×56" at the measured shapes, else with symbols; empty when nothing is known.
std::string shape_text(const Inspection& inspection, const Graph& graph, ValueId id);

// Index of a value in the page's data, which the drawing refers to.
class ValueIndex {
 public:
  int of(const Graph* graph, ValueId id);  // a new one at first sight; -1 for kNone
  const std::vector<std::pair<const Graph*, ValueId>>& all() const { return all_; }

 private:
  std::map<std::pair<const Graph*, ValueId>, int> known_;
  std::vector<std::pair<const Graph*, ValueId>> all_;
};

// One view as an <svg> element.
std::string drawing(const Inspection& inspection, const GraphViews& views, int view, ValueIndex& values);

// Nodes, values and views as JSON, safe inside a <script> element.
std::string page_data(const Inspection& inspection, const GraphViews& views, ValueIndex& values);

}  // namespace ds::page
