// SPDX-License-Identifier: Apache-2.0
//
// The attention of a block computed by two checkpoints on the same random hidden states.
#ifndef LARQL_DETAIL_VERIFY_ATTENTION_RUN_HPP
#define LARQL_DETAIL_VERIFY_ATTENTION_RUN_HPP

#include <larql/attention_layer.hpp>
#include <larql/attention_spec.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/model/roles.hpp>
#include <larql/detail/verify/report.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/executor.hpp>
#include <larql/key_selection.hpp>
#include <larql/kv_cache.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace larql::detail {

/// Random numbers that are the same on every machine (SplitMix64), which std's distributions are not.
class verify_random {
public:
    explicit verify_random(std::uint64_t seed) noexcept : m_state(seed) {}

    std::uint64_t bits() noexcept {
        std::uint64_t z = (m_state += 0x9e3779b97f4a7c15ULL);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
        return z ^ (z >> 31);
    }
    /// Mean 0, variance 1, nearly normal: the sum of four uniform numbers, scaled.
    float number() noexcept {
        double sum = -2.0;
        for (int i = 0; i < 4; ++i) sum += static_cast<double>(bits() >> 11) * 0x1p-53;
        return static_cast<float>(sum * 1.7320508075688772);
    }

private:
    std::uint64_t m_state;
};

/// Tokens that a check sends through a block: more than it can see at once where that is cheap.
inline std::size_t tokens_to_check(const attention_spec& spec) noexcept {
    constexpr std::size_t usual = 32, beyond = 16, most = 512;
    const compression_spec& c = spec.compression;
    std::size_t tokens = usual;
    for (const std::size_t limit :
         {spec.sliding_window, spec.chunk, spec.indexer.top_k, 2 * c.ratio, c.index_top_k * c.ratio})
        if (limit != 0 && limit + beyond <= most) tokens = std::max(tokens, limit + beyond);
    return tokens;
}

inline tensor<float, 2> random_hidden(std::size_t tokens, std::size_t width, std::uint64_t seed) {
    auto hidden = tensor<float, 2>::from_shape({tokens, width});
    verify_random random(seed);
    std::generate_n(hidden.data(), hidden.size(), [&] { return random.number(); });
    return hidden;
}

/// What a block that shares another's selection is given: random keys, as many as it may see.
inline key_selection random_selection(std::size_t tokens, std::size_t top_k, std::uint64_t seed) {
    key_selection selection;
    verify_random random(seed);
    for (std::size_t t = 0; t < tokens; ++t) {
        std::vector<std::uint32_t> keys(t + 1);
        std::iota(keys.begin(), keys.end(), std::uint32_t{0});
        const std::size_t seen = std::min(top_k, keys.size());
        for (std::size_t i = 0; i < seen; ++i)
            std::swap(keys[i], keys[i + static_cast<std::size_t>(random.bits() % (keys.size() - i))]);
        keys.resize(seen);
        std::ranges::sort(keys);
        selection.append(keys);
    }
    return selection;
}

/// What a block that shares another's keys and values is given: a cache of random ones, which neither side made.
inline kv_cache<float> random_keys(const attention_spec& spec, std::size_t tokens, std::uint64_t seed) {
    const mla_geometry& g = spec.geometry;
    kv_cache<float> cache(
        {.capacity = tokens, .kv_heads = g.kv_heads(), .key_size = g.qk_head_dim(), .value_size = g.v_head_dim});
    cache.append(random_hidden(tokens, g.kv_heads() * g.qk_head_dim(), seed),
                 random_hidden(tokens, g.kv_heads() * g.v_head_dim, ~seed));
    return cache;
}

/// What a block that attends to another's latents is given: a cache of those that the other makes of random hidden
/// states. Forms differ in what of a norm is in a latent, so that no random ones are the same on both sides.
inline kv_cache<float> latents_of(const checkpoint& model, std::size_t block, std::size_t tokens, executor* threads) {
    const attention_spec& spec = model.spec(block);
    const attention_layer<float> layer =
        model.attention(block, spec.form, {.storage = weight_storage::from_file, .threads = threads});
    key_selection given;
    if (spec.indexer.shared) given = random_selection(tokens, spec.indexer.top_k, block + 1);
    kv_cache<float> cache = layer.make_cache(tokens);
    (void)layer.forward(random_hidden(tokens, spec.input_width(), block + 1), cache,
                        {.selection = &given, .threads = threads});
    return cache;
}

/// A block on hidden states, alone, or on the keys of the block whose keys it shares.
inline attention_result<float> run_block(const checkpoint& model, std::size_t block,
                                         const attention_layer<float>& layer, const tensor<float, 2>& hidden,
                                         const forward_options& options) {
    const attention_spec& spec = layer.spec();
    if (!spec.kv_layer) return layer.forward(hidden, options);
    const std::size_t tokens = hidden.shape(0);
    kv_cache<float> keys = spec.shares_latents
                               ? latents_of(model, model.config().kv_block(block), tokens, options.threads)
                               : random_keys(spec, tokens, block + 1);
    if (!spec.indexer.own()) return layer.forward(hidden, keys, options);
    kv_cache<float> index = layer.make_cache(tokens);
    return layer.forward(hidden, keys, index, options);
}

/// The largest difference over the largest magnitude of the first; NaN and infinities count as infinite.
inline double relative_difference(std::span<const float> a, std::span<const float> b) noexcept {
    constexpr double infinite = std::numeric_limits<double>::infinity();
    if (a.size() != b.size()) return infinite;
    double largest = 0.0, error = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        if (!std::isfinite(a[i]) || !std::isfinite(b[i])) return infinite;
        largest = std::max(largest, std::fabs(double{a[i]}));
        error = std::max(error, std::fabs(double{a[i]} - double{b[i]}));
    }
    return error == 0.0 ? 0.0 : largest == 0.0 ? infinite : error / largest;
}

/// A block that attends to keys which it is given instead of those that its own indexer would choose.
inline attention_layer<float> without_indexer(const checkpoint& model, std::size_t block) {
    attention_spec spec = model.spec(block);
    attention_weights<float> weights = model.stored_weights(block);
    spec.indexer.shared = true;
    for (const role_row& row : attention_roles) {
        if (row.needed(spec, spec.form)) continue;
        weights[row.role] = {};
        weights.vector(row.role) = {};
        weights.bias(row.role) = {};
    }
    return {std::move(spec), std::move(weights)};
}

/// How many keys of `a` are not in `b`.
inline std::size_t chosen_otherwise(const key_selection& a, const key_selection& b) {
    std::size_t count = 0;
    for (std::size_t t = 0; t < a.tokens(); ++t)
        for (const std::uint32_t key : a.of(t))
            if (t >= b.tokens() || !std::ranges::binary_search(b.of(t), key)) ++count;
    return count;
}

inline std::string short_number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.3g", value);
    return text;
}

/// Computes a block on both sides, each in the form that it stores.
///
/// An indexer's choice jumps where two keys have nearly the same score, so the second side attends to the keys that the
/// first chose, and its own choice is counted: of all keys, ten times the tolerance may be others.
inline void run_attention(const checkpoint& a, const checkpoint& b, double tolerance, executor* threads,
                          attention_check& check) {
    const attention_spec& spec = a.spec(check.block);
    const std::size_t tokens = check.tokens = tokens_to_check(spec);
    const tensor<float, 2> hidden = random_hidden(tokens, spec.input_width(), check.block + 1);
    key_selection given;
    if (spec.indexer.shared) given = random_selection(tokens, spec.indexer.top_k, check.block + 1);
    const forward_options options{.selection = &given, .threads = threads};
    const auto compute = [&](const checkpoint& model) {
        const attention_layer<float> layer = model.attention(
            check.block, model.spec(check.block).form, {.storage = weight_storage::from_file, .threads = threads});
        return run_block(model, check.block, layer, hidden, options);
    };
    const attention_result<float> x = compute(a);
    attention_result<float> y = compute(b);
    if (spec.indexer.own() && !x.selection.empty()) {
        check.selected = x.selection.keys.size();
        check.chosen_otherwise = chosen_otherwise(x.selection, y.selection);
        if (check.chosen_otherwise != 0)
            y = run_block(b, check.block, without_indexer(b, check.block), hidden,
                          {.selection = &x.selection, .threads = threads});
    }
    const auto all = [](const tensor<float, 2>& t) { return std::span<const float>(t.data(), t.size()); };
    check.error =
        std::max(relative_difference(all(x.context), all(y.context)), relative_difference(all(x.out), all(y.out)));
    if (check.error > tolerance)
        check.problem = "error " + short_number(check.error) + ", allowed " + short_number(tolerance);
    else if (static_cast<double>(check.chosen_otherwise) > 10.0 * tolerance * static_cast<double>(check.selected))
        check.problem = concat({"the indexers choose other keys: ", check.chosen_otherwise, " of ", check.selected});
}

}  // namespace larql::detail

#endif
