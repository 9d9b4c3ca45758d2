#include "libds/tasks/inspect/views.h"

#include <gtest/gtest.h>

#include <set>

#include "libds/ir/rewriter.h"

namespace ds {
namespace {

// A chain of Relu nodes with the given names.
std::shared_ptr<Graph> chain(const std::vector<std::string>& names) {
  auto g = std::make_shared<Graph>();
  Rewriter rw(*g);
  ValueId x = rw.add_input("x", DType::kF32, {4});
  for (const std::string& name : names) x = rw.emit("Relu", {x}, {}, name);
  rw.add_output(x);
  return g;
}

// Every node is drawn once, groups lead to views that say what they hold, and edges join boxes that exist.
void check(const GraphViews& v, size_t largest) {
  std::set<int> drawn;
  for (size_t i = 0; i < v.views.size(); ++i) {
    const GraphView& view = v.views[i];
    EXPECT_LE(view.boxes.size(), largest + 2 * largest);  // boxes, and what comes from and goes to the outside
    for (const ViewBox& b : view.boxes) {
      if (b.kind == ViewBox::Kind::kNode) {
        EXPECT_TRUE(drawn.insert(b.node).second);
        EXPECT_EQ(v.nodes[static_cast<size_t>(b.node)].view, static_cast<int>(i));
      } else if (b.kind == ViewBox::Kind::kGroup) {
        ASSERT_GE(b.view, 0);
        EXPECT_EQ(v.views[static_cast<size_t>(b.view)].parent, static_cast<int>(i));
        EXPECT_GT(b.nodes, 1);
      }
    }
    for (const ViewEdge& e : view.edges) {
      EXPECT_NE(e.from, e.to);
      EXPECT_LT(static_cast<size_t>(std::max(e.from, e.to)), view.boxes.size());
    }
  }
  EXPECT_EQ(drawn.size(), v.nodes.size());
}

TEST(Views, ASmallGraphIsOneView) {
  const auto g = chain({"a/1", "a/2", "b/1"});
  const GraphViews v = split_into_views(*g);
  ASSERT_EQ(v.views.size(), 1u);
  EXPECT_EQ(v.views[0].boxes.size(), 5u);
  EXPECT_EQ(v.views[0].boxes.front().kind, ViewBox::Kind::kInput);
  EXPECT_EQ(v.views[0].boxes.back().kind, ViewBox::Kind::kOutput);
  EXPECT_EQ(v.views[0].edges.size(), 4u);
  check(v, 220);
}

TEST(Views, ALargeOneIsFoldedByScopes) {
  std::vector<std::string> names = {"embed"};
  for (int layer = 0; layer < 12; ++layer)
    for (int i = 0; i < 30; ++i) names.push_back(fmt::format("encoder/layer.{}/op{}", layer, i));
  names.push_back("head");
  const auto g = chain(names);
  const GraphViews v = split_into_views(*g);
  check(v, 220);
  std::vector<std::string> titles;
  for (const ViewBox& b : v.views[0].boxes)
    if (b.kind == ViewBox::Kind::kGroup) titles.push_back(b.title);
  ASSERT_EQ(titles.size(), 12u);  // the encoder is opened, its layers are not
  EXPECT_EQ(titles[0], "encoder/layer.0");
  EXPECT_EQ(v.views[0].boxes[1].kind, ViewBox::Kind::kNode);  // embed
}

TEST(Views, NamesThatSayNothingAreCutIntoRuns) {
  std::vector<std::string> names;
  for (int i = 0; i < 5000; ++i) names.push_back(fmt::format("n{}", i));
  const auto g = chain(names);
  const GraphViews v = split_into_views(*g);
  check(v, 220);
  EXPECT_EQ(v.views[0].boxes[1].kind, ViewBox::Kind::kGroup);
  EXPECT_EQ(v.views[0].boxes[1].title, "nodes 1 to 100");
}

TEST(Views, GroupsMayReferToEachOtherBothWays) {
  std::vector<std::string> names;
  for (int i = 0; i < 300; ++i) names.push_back(fmt::format("{}/op{}", i % 2 ? "left" : "right", i));
  const auto g = chain(names);
  const GraphViews v = split_into_views(*g, {220, 10});
  check(v, 300);
}

}  // namespace
}  // namespace ds
