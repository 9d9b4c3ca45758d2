#include "libds/tasks/inspect/layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "libds/base/random.h"

namespace ds {
namespace {

TEST(Spread, KeepsGapsAndMovesAsLittleAsPossible) {
  const std::vector<double> wanted = {0, 0, 0}, weight = {1, 1, 1}, gap = {0, 10, 10};
  EXPECT_EQ(spread(wanted, weight, gap), (std::vector<double>{-10, 0, 10}));
  const std::vector<double> far = {0, 50, 51}, heavy = {1, 1, 9};
  const std::vector<double> x = spread(far, heavy, gap);
  EXPECT_DOUBLE_EQ(x[0], 0);
  EXPECT_DOUBLE_EQ(x[2] - x[1], 10);
  EXPECT_NEAR(x[2], (50 + 10 + 9 * 51) / 10.0, 1e-9);  // the heavy one hardly moves
  EXPECT_TRUE(spread({}, {}, {}).empty());
}

TEST(Layout, AChainIsStraight) {
  const std::vector<LayoutBox> boxes(4, {80, 30});
  const std::vector<LayoutEdge> edges = {{0, 1}, {1, 2}, {2, 3}};
  const Layout l = layered_layout(boxes, edges);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(l.layer[i], static_cast<int>(i));
    EXPECT_NEAR(l.boxes[i].x, 40, 1e-6);
  }
  for (const auto& line : l.edges) ASSERT_EQ(line.size(), 2u);
  EXPECT_NEAR(l.width, 80, 1e-6);
}

TEST(Layout, AResidualConnectionPassesBesideTheBranch) {
  // 0 -> 1 -> 2 -> 3 and 0 -> 3.
  const std::vector<LayoutBox> boxes(4, {80, 30});
  const std::vector<LayoutEdge> edges = {{0, 1}, {1, 2}, {2, 3}, {0, 3}};
  const Layout l = layered_layout(boxes, edges);
  ASSERT_EQ(l.edges[3].size(), 6u);
  for (size_t i = 1; i < 5; ++i) {
    const double left = l.boxes[1].x - 40, right = l.boxes[1].x + 40;
    EXPECT_TRUE(l.edges[3][i].x < left || l.edges[3][i].x > right);
  }
}

TEST(Layout, EdgesAgainstTheOrderAreDrawnUpwards) {
  const std::vector<LayoutBox> boxes(2, {80, 30});
  const std::vector<LayoutEdge> edges = {{0, 1}, {1, 0}};
  const Layout l = layered_layout(boxes, edges);
  EXPECT_LT(l.edges[0].front().y, l.edges[0].back().y);
  EXPECT_GT(l.edges[1].front().y, l.edges[1].back().y);
}

TEST(Layout, LinesThatAreTooLongAreLeftOut) {
  const std::vector<LayoutBox> boxes(10, {80, 30});
  std::vector<LayoutEdge> edges;
  for (int i = 0; i + 1 < 10; ++i) edges.push_back({i, i + 1});
  edges.push_back({0, 9, 5});
  const Layout l = layered_layout(boxes, edges);
  EXPECT_TRUE(l.edges.back().empty());
  EXPECT_FALSE(l.edges.front().empty());
}

TEST(Layout, NothingAtAll) {
  const Layout l = layered_layout({}, {});
  EXPECT_TRUE(l.boxes.empty());
  EXPECT_EQ(l.width, 0);
}

// Random graphs: boxes do not overlap, lines begin and end at their boxes and go down, all of it is inside.
TEST(Layout, HoldsWhatItPromises) {
  for (uint64_t seed = 0; seed < 30; ++seed) {
    Random random(seed);
    const int n = 2 + static_cast<int>(random.below(80));
    std::vector<LayoutBox> boxes;
    for (int i = 0; i < n; ++i) boxes.push_back({60 + static_cast<double>(random.below(120)), random.below(2) ? 30.0 : 42.0});
    std::vector<LayoutEdge> edges;
    for (int i = 1; i < n; ++i)
      for (uint64_t k = random.below(4); k > 0; --k) edges.push_back({static_cast<int>(random.below(static_cast<uint64_t>(i))), i});
    const LayoutOptions options;
    const Layout l = layered_layout(boxes, edges, options);
    std::map<int, std::vector<size_t>> layers;
    for (size_t i = 0; i < boxes.size(); ++i) {
      layers[l.layer[i]].push_back(i);
      EXPECT_GE(l.boxes[i].x - boxes[i].width / 2, -1e-6);
      EXPECT_LE(l.boxes[i].x + boxes[i].width / 2, l.width + 1e-6);
      EXPECT_LE(l.boxes[i].y + boxes[i].height / 2, l.height + 1e-6);
    }
    double bottom = -1;
    for (auto& [layer, members] : layers) {
      std::sort(members.begin(), members.end(), [&](size_t a, size_t b) { return l.boxes[a].x < l.boxes[b].x; });
      double lowest = 0;
      for (size_t i = 0; i < members.size(); ++i) {
        const size_t b = members[i];
        EXPECT_GT(l.boxes[b].y - boxes[b].height / 2, bottom);
        lowest = std::max(lowest, l.boxes[b].y + boxes[b].height / 2);
        if (i == 0) continue;
        const size_t a = members[i - 1];
        EXPECT_GE(l.boxes[b].x - l.boxes[a].x, (boxes[a].width + boxes[b].width) / 2 + options.gap_x - 1e-6);
      }
      bottom = lowest;
    }
    for (size_t e = 0; e < edges.size(); ++e) {
      const auto& line = l.edges[e];
      if (line.empty()) continue;
      const auto from = static_cast<size_t>(edges[e].from), to = static_cast<size_t>(edges[e].to);
      EXPECT_LE(std::abs(line.front().x - l.boxes[from].x), boxes[from].width / 2);
      EXPECT_NEAR(line.front().y, l.boxes[from].y + boxes[from].height / 2, 1e-6);
      EXPECT_LE(std::abs(line.back().x - l.boxes[to].x), boxes[to].width / 2);
      EXPECT_NEAR(line.back().y, l.boxes[to].y - boxes[to].height / 2, 1e-6);
      for (size_t i = 1; i < line.size(); ++i) EXPECT_GE(line[i].y, line[i - 1].y - 1e-6);
    }
  }
}

}  // namespace
}  // namespace ds
