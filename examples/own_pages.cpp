// SPDX-License-Identifier: Apache-2.0
//
// A block in an engine that keeps keys and values itself, in pages that its sequences share: larql projects, attends
// over the pages, and finishes. Beside it the same tokens through larql's own caches, and the difference.
#include <larql/checkpoint.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <vector>

namespace {

constexpr std::size_t page_tokens = 16;

/// Pages of the rows of one block: in latent form one row per token, whose first columns are the values.
struct page_pool {
    std::size_t width;
    std::vector<larql::f16> rows{};
    std::uint32_t pages = 0;

    std::uint32_t take() {
        rows.resize((pages + 1) * page_tokens * width);
        return pages++;
    }
};

/// What an engine knows of one sequence: its pages, and how many tokens are in them.
struct sequence {
    std::vector<std::uint32_t> pages{};
    std::size_t tokens = 0;

    void append(page_pool& pool, const float* row) {
        if (tokens % page_tokens == 0) pages.push_back(pool.take());
        larql::f16* const to = pool.rows.data() + (pages.back() * page_tokens + tokens % page_tokens) * pool.width;
        for (std::size_t i = 0; i < pool.width; ++i) to[i] = static_cast<larql::f16>(row[i]);
        ++tokens;
    }
    [[nodiscard]] larql::rows_view<const larql::f16> rows(const page_pool& pool, std::size_t columns) const {
        return {.data = pool.rows.data(),
                .tokens = tokens,
                .heads = 1,
                .size = columns,
                .token_stride = static_cast<std::ptrdiff_t>(pool.width),
                .pages = pages,
                .page_tokens = page_tokens,
                .page_stride = static_cast<std::ptrdiff_t>(page_tokens * pool.width)};
    }
};

larql::tensor<float, 2> tokens_of(std::size_t count, std::size_t width, std::size_t step) {
    auto x = larql::tensor<float, 2>::from_shape({count, width});
    for (std::size_t i = 0; i < x.size(); ++i) x.data()[i] = std::sin(static_cast<float>(i * 7 + step * 31 + 1));
    return x;
}

}  // namespace

int main(int argc, char** argv) try {
    if (argc != 2) return 2;
    const auto model = larql::checkpoint::open(argv[1]);
    const auto layer = model.attention(0, larql::attention_form::latent);
    const larql::mla_geometry& g = layer.spec().geometry;

    constexpr std::size_t count = 3;
    page_pool pool{.width = g.kv_lora_rank + g.qk_rope_head_dim};
    std::vector<sequence> sequences(count);
    std::vector<larql::kv_cache<larql::f16>> caches;
    for (std::size_t i = 0; i < count; ++i) caches.push_back(layer.make_cache<larql::f16>(64));

    double worst = 0;
    for (std::size_t step = 0; step < 40; ++step) {
        // One new token of each sequence, but sequence i begins at step 5 i.
        std::vector<std::size_t> positions;
        std::vector<larql::cached_sequence<larql::f16>> cached;
        for (std::size_t i = 0; i < count; ++i)
            if (step >= 5 * i) {
                positions.push_back(sequences[i].tokens);
                cached.push_back({.cache = &caches[i], .tokens = 1});
            }
        const auto x = tokens_of(positions.size(), layer.spec().input_width(), step);

        const auto made = layer.project(x, positions);
        std::vector<larql::attention_sequence<larql::f16>> work;
        for (std::size_t i = 0; i < positions.size(); ++i)  // all pages first: the pool moves as it grows
            sequences[i].append(pool, made.k.data() + i * pool.width);
        for (std::size_t i = 0; i < positions.size(); ++i)
            work.push_back(
                {.tokens = 1, .k = sequences[i].rows(pool, pool.width), .v = sequences[i].rows(pool, g.kv_lora_rank)});
        auto attended = larql::tensor<float, 3>::from_shape({positions.size(), g.num_heads, g.kv_lora_rank});
        larql::gqa_attention_batch(made.q, work, attended, layer.options());
        const auto out = layer.finish(attended, x);

        const auto want = layer.forward_batch(x, cached).out;
        for (std::size_t i = 0; i < out.size(); ++i)
            worst = std::max(worst, static_cast<double>(std::abs(out.data()[i] - want.data()[i])));
    }
    std::printf("%zu sequences in %u pages; largest difference to larql's own caches: %.1e\n", count, pool.pages,
                worst);
    return worst < 1e-4 ? 0 : 1;
} catch (const larql::error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
}
