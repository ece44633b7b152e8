// SPDX-License-Identifier: Apache-2.0
//
// Sparse attention: the keys that an indexer selects, against what transformers selects and against the formula; blocks
// that share a selection; caches; and what configurations say of it.
#include <larql/attention_cost.hpp>
#include <larql/checkpoint.hpp>
#include <larql/convert.hpp>
#include <larql/detail/indexer/top_k.hpp>

#include <nlohmann/json.hpp>
#include <support/gguf_builder.hpp>
#include <support/reference_mla.hpp>
#include <support/tiny_model.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace {

using larql::attention_form;
using larql::attention_layer;
using larql::attention_result;
using larql::attention_spec;
using larql::checkpoint;
using larql::errc;
using larql::key_selection;
using larql::tensor;
using larql::tensor_role;
using larql::detail::select_top_k;
using larql::testing::matrix;
using larql::testing::random_source;
using larql::testing::relative_error;
using nlohmann::json;

constexpr attention_form all_forms[] = {attention_form::factored, attention_form::dense, attention_form::latent};

std::string data(const std::string& path) { return std::string(LARQL_TEST_DATA) + "/" + path; }

larql::safetensors_file reference_of(const std::string& name) {
    return larql::safetensors_file::open(data("hf/" + name + "/reference.safetensors"));
}

/// Rows [begin, end).
tensor<float, 2> rows(const tensor<float, 2>& x, std::size_t begin, std::size_t end) {
    auto part = tensor<float, 2>::from_shape({end - begin, x.shape(1)});
    std::copy_n(x.data() + begin * x.shape(1), part.size(), part.data());
    return part;
}

/// Rows [-1 filled] of a reference as lists.
std::vector<std::vector<std::uint32_t>> lists_of(const tensor<std::int32_t, 2>& filled) {
    std::vector<std::vector<std::uint32_t>> lists(filled.shape(0));
    for (std::size_t t = 0; t < lists.size(); ++t)
        for (std::size_t i = 0; i < filled.shape(1) && filled(t, i) >= 0; ++i)
            lists[t].push_back(static_cast<std::uint32_t>(filled(t, i)));
    return lists;
}

std::vector<std::uint32_t> list_of(const key_selection& selection, std::size_t token) {
    return {selection.of(token).begin(), selection.of(token).end()};
}

/// All blocks of a model, each on what transformers fed it, with the selections handed from block to block.
/// @param steps  how many tokens a call takes; 0: one pass without a cache
/// @return       the worst error of context and output; infinity if any selection differs
double worst_error(const checkpoint& model, const std::string& name, attention_form form, std::size_t steps) {
    const auto reference = reference_of(name);
    double worst = 0.0;
    const auto note = [&](double error) { worst = error <= worst ? worst : error; };
    const std::size_t tokens = reference.read<2>("layer0.hidden").shape(0), step = steps == 0 ? tokens : steps;
    std::vector<key_selection> last((tokens + step - 1) / step);  // of the last block that selects, for each call
    for (std::size_t block = 0; block < model.attention_blocks(); ++block) {
        const std::string layer = "layer" + std::to_string(block) + ".";
        const tensor<float, 2> hidden = reference.read<2>(layer + "hidden"), out = reference.read<2>(layer + "out"),
                               context = reference.read<2>(layer + "context");
        const auto want = lists_of(reference.read_integers<std::int32_t, 2>(layer + "selection"));
        const auto attention = model.attention(block, form);
        auto cache = attention.make_cache(tokens);
        for (std::size_t t = 0; t < tokens; t += step) {
            const std::size_t end = std::min(t + step, tokens);
            key_selection& handed = last[t / step];
            const larql::forward_options options{.selection = attention.spec().indexer.shared ? &handed : nullptr};
            const attention_result<float> got = steps == 0 ? attention.forward(hidden, options)
                                                           : attention.forward(rows(hidden, t, end), cache, options);
            note(relative_error(got.out, rows(out, t, end)));
            note(relative_error(got.context, rows(context, t, end)));
            for (std::size_t i = t; i < end && !got.selection.empty(); ++i)
                if (list_of(got.selection, i - t) != want[i]) note(std::numeric_limits<double>::infinity());
            if (got.selection.empty() && attention.spec().indexer.selects(end))
                note(std::numeric_limits<double>::infinity());
            if (attention.spec().indexer.own()) handed = got.selection;
        }
    }
    return worst;
}

struct reference_case {
    std::string name;
    bool gguf;
};
const reference_case cases[] = {{"deepseek_v32_yarn", true}, {"deepseek_v32_bias", true},
                                {"glm_moe_dsa", true},       {"hy_v4", false},
                                {"hy_v4_vl", false},         {"glm5_next", false}};

// --- the formula, in double ---

struct sparse_block {
    attention_spec spec;
    larql::testing::layer_tensors w;
    matrix o, wq, wk, weights, pool_gate, pool_bias;
    larql::testing::vector gains, biases;

    explicit sparse_block(const larql::indexer_spec& indexer) {
        const larql::mla_geometry g{.hidden_size = 24,
                                    .num_heads = 2,
                                    .q_lora_rank = 12,
                                    .kv_lora_rank = 10,
                                    .qk_nope_head_dim = 6,
                                    .qk_rope_head_dim = 4,
                                    .v_head_dim = 8};
        spec = {.geometry = g,
                .rope = {.rotary_dim = 4, .theta = 50.0},
                .scale = 0.3,
                .indexer = indexer,
                .latent_norm = {.kind = larql::norm_kind::rms, .eps = 1e-3}};
        random_source random(5);
        using larql::testing::random_matrix;
        using larql::testing::random_vector;
        w = larql::testing::random_layer(g, 7, true, true);
        o = random_matrix(random, 24, 16, 0.2);
        wq = random_matrix(random, indexer.heads * indexer.head_dim, 12, 0.3);
        wk = random_matrix(random, indexer.head_dim, 24, 0.1);
        weights = random_matrix(random, indexer.heads, 24, 0.2);
        gains = random_vector(random, indexer.head_dim, 1.0, 0.4);
        biases = random_vector(random, indexer.head_dim, 0.0, 0.4);
        pool_gate = random_matrix(random, indexer.head_dim, 24, 0.3);
        pool_bias = random_matrix(random, indexer.pool, indexer.head_dim);
    }

    template <class T>
    [[nodiscard]] larql::attention_weights<T> tensors() const {
        using enum tensor_role;
        auto all = larql::to_attention_weights<T>(larql::testing::factors_of<T>(w), this->o);
        all[indexer_q_b] = wq;
        all[indexer_k] = wk;
        all[indexer_weights] = weights;
        if (spec.indexer.k_norm.kind != larql::norm_kind::none) all.vector(indexer_k_norm) = gains;
        if (spec.indexer.k_norm.has_bias) all.vector(indexer_k_norm_bias) = biases;
        if (spec.indexer.pool > 1) {
            all[indexer_pool_gate] = pool_gate;
            all[indexer_pool_bias] = pool_bias;
        }
        return all;
    }

    /// Turns the rotated elements of one head.
    void rotate(double* head, std::size_t position) const {
        const larql::indexer_spec& s = spec.indexer;
        const std::size_t begin = s.order == larql::head_order::rope_nope ? 0 : s.head_dim - 4;
        for (std::size_t j = 0; j < 2; ++j) {
            const double angle = static_cast<double>(position) * std::pow(50.0, -static_cast<double>(j) / 2.0);
            const bool pairs = s.pairing == larql::rope_pairing::interleaved;
            double &a = head[begin + (pairs ? 2 * j : j)], &b = head[begin + (pairs ? 2 * j + 1 : j + 2)];
            const double old = a;
            a = old * std::cos(angle) - b * std::sin(angle);
            b = old * std::sin(angle) + b * std::cos(angle);
        }
    }

    /// One key for each whole pool.
    [[nodiscard]] matrix pooled(const matrix& x, const matrix& k) const {
        const std::size_t pool = spec.indexer.pool, dim = k.shape(1);
        if (pool == 1) return k;
        const matrix gates = larql::testing::project(x, pool_gate);
        auto keys = matrix::from_shape({k.shape(0) / pool, dim});
        for (std::size_t p = 0; p < keys.shape(0); ++p)
            for (std::size_t d = 0; d < dim; ++d) {
                double sum = 0.0, mean = 0.0;
                for (std::size_t i = 0; i < pool; ++i) {
                    const double weight = std::exp(gates(p * pool + i, d) + pool_bias(i, d));
                    sum += weight;
                    mean += weight * k(p * pool + i, d);
                }
                keys(p, d) = mean / sum;
            }
        return keys;
    }

    /// Scores of every key, or of every whole pool, for the last token.
    [[nodiscard]] std::vector<double> last_scores(const matrix& x) const {
        const larql::indexer_spec& s = spec.indexer;
        const std::size_t tokens = x.shape(0), dim = s.head_dim;
        matrix k = larql::testing::project(x, wk);
        for (std::size_t t = 0; t < tokens; ++t) {
            double mean = 0.0, squares = 0.0;
            if (s.k_norm.kind == larql::norm_kind::layer)
                for (std::size_t i = 0; i < dim; ++i) mean += k(t, i) / static_cast<double>(dim);
            for (std::size_t i = 0; i < dim; ++i) squares += (k(t, i) - mean) * (k(t, i) - mean);
            const double factor = 1.0 / std::sqrt(squares / static_cast<double>(dim) + s.k_norm.eps);
            for (std::size_t i = 0; i < dim && s.k_norm.kind != larql::norm_kind::none; ++i)
                k(t, i) = (k(t, i) - mean) * factor * gains(i) + (s.k_norm.has_bias ? biases(i) : 0.0);
            rotate(&k(t, 0), t);
        }
        k = pooled(x, k);
        auto last = matrix::from_shape({1, x.shape(1)});
        for (std::size_t i = 0; i < x.shape(1); ++i) last(0, i) = x(tokens - 1, i);
        matrix latent = larql::testing::project(last, w.q_a, w.q_a_bias);
        const double factor = larql::testing::rms_factors(latent, 12, 1e-3)(0);
        for (std::size_t i = 0; i < 12; ++i) latent(0, i) *= factor * w.q_a_norm(i);
        matrix q = larql::testing::project(latent, wq);
        const matrix head_weights = larql::testing::project(last, weights);
        std::vector<double> scores(k.shape(0), 0.0);
        for (std::size_t h = 0; h < s.heads; ++h) {
            rotate(&q(0, h * dim), tokens - 1);
            for (std::size_t t = 0; t < scores.size(); ++t) {
                double product = 0.0;
                for (std::size_t i = 0; i < dim; ++i) product += q(0, h * dim + i) * k(t, i);
                scores[t] += head_weights(0, h) * std::max(product, 0.0);
            }
        }
        return scores;
    }
};

constexpr larql::norm_spec layer_norm{.kind = larql::norm_kind::layer, .has_bias = true, .eps = 0.02};

template <class T>
std::vector<std::uint32_t> top(std::size_t k, const std::vector<T>& scores) {
    std::vector<std::uint32_t> list(std::min(k, scores.size()));
    select_top_k<T>(scores, list);
    return list;
}

}  // namespace

TEST_CASE("indexer: selections, context and output are transformers', in every form, at once and through a cache") {
    for (const auto& [name, has_gguf] : cases) {
        CAPTURE(name);
        for (const attention_form form : all_forms) {
            CAPTURE(to_string(form));
            const checkpoint model = checkpoint::open(data("hf/" + name));
            for (const std::size_t steps : {0U, 1U, 4U, 17U}) {
                CAPTURE(steps);
                CHECK(worst_error(model, name, form, steps) <= 1e-5);
            }
            if (!has_gguf) continue;
            const checkpoint gguf = checkpoint::open(data("gguf/" + name + "-bf16.gguf"));
            CHECK(worst_error(gguf, name, form, 0) <= 2e-5);
        }
    }
}

TEST_CASE("indexer: conversions keep it, in every form") {
    for (const std::string name : {"deepseek_v32_yarn", "glm5_next"})
        for (const attention_form form : all_forms) {
            CAPTURE(name);
            CAPTURE(to_string(form));
            const larql::testing::temporary_folder folder;
            const auto path = folder / "converted";
            larql::convert_to_safetensors(checkpoint::open(data("hf/" + name)), path,
                                          {.form = form, .type = larql::dtype::f32});
            CHECK(worst_error(checkpoint::open(path), name, form, 0) <= 1e-5);
        }
}

TEST_CASE("indexer: of equal scores the lower position goes first, and a NaN goes before everything") {
    using list = std::vector<std::uint32_t>;
    CHECK(top<float>(3, {1, 2, 2, 2, 0, 2}) == list{1, 2, 3});
    CHECK(top<float>(2, {0, 0, 0, 0}) == list{0, 1});
    CHECK(top<float>(2, {-1.0F, -0.0F, 0.0F, 0.0F}) == list{1, 2});
    CHECK(top<double>(4, {5, 1, 1, 7, 1, 1}) == list{0, 1, 2, 3});
    CHECK(top<float>(2, {3, std::nanf(""), std::numeric_limits<float>::infinity(), 9}) == list{1, 2});
    CHECK(top<float>(1, {-3, -2, -2}) == list{1});
    CHECK(top<float>(9, {1, 2}) == list{0, 1});
    CHECK(top<float>(0, {1, 2}) == list{});
    // Many ties, all sizes: the stable order of a full sort.
    random_source random(3);
    std::vector<float> scores(200);
    for (float& s : scores) s = static_cast<float>(random.below(7));
    std::vector<std::uint32_t> order(200);
    for (std::uint32_t i = 0; i < 200; ++i) order[i] = i;
    std::ranges::stable_sort(order, std::ranges::greater{}, [&](std::uint32_t i) { return scores[i]; });
    for (std::size_t k = 1; k <= 200; ++k) {
        list want(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(k));
        std::ranges::sort(want);
        REQUIRE(top<float>(k, scores) == want);
    }
}

TEST_CASE("indexer: both orders of a head, both pairings and every norm compute the formula") {
    random_source random(9);
    const matrix x = larql::testing::random_matrix(random, 60, 24);
    const larql::norm_spec norms[] = {layer_norm, {.kind = larql::norm_kind::rms, .eps = 0.02}, {}};
    for (const auto order : {larql::head_order::rope_nope, larql::head_order::nope_rope})
        for (const auto pairing : {larql::rope_pairing::half_split, larql::rope_pairing::interleaved})
            for (const larql::norm_spec& norm : norms) {
                const sparse_block block(
                    {.top_k = 13, .heads = 3, .head_dim = 10, .order = order, .pairing = pairing, .k_norm = norm});
                const attention_layer<double> layer(block.spec, block.tensors<double>());
                CHECK(list_of(layer.forward(x).selection, 59) == top<double>(13, block.last_scores(x)));
            }
}

TEST_CASE("indexer: pools are scored and selected as one, and what lies behind the last whole one is seen") {
    random_source random(12);
    const matrix x = larql::testing::random_matrix(random, 62, 24);
    const sparse_block block({.top_k = 12, .heads = 3, .head_dim = 10, .k_norm = layer_norm, .pool = 4});
    const attention_layer<double> layer(block.spec, block.tensors<double>());
    std::vector<std::uint32_t> want;
    for (const std::uint32_t pool : top<double>(3, block.last_scores(x)))
        for (std::uint32_t i = 0; i < 4; ++i) want.push_back(4 * pool + i);
    for (const std::uint32_t behind : {60U, 61U}) want.push_back(behind);
    const auto whole = layer.forward(x);
    CHECK(list_of(whole.selection, 61) == want);
    CHECK(list_of(whole.selection, 14).size() == 15);  // three whole pools and three keys: all
    CHECK(list_of(whole.selection, 15).size() == 12);
    CHECK(list_of(whole.selection, 16).size() == 13);
    // Pools that a call completes and pools that it begins, from what a cache holds.
    const attention_layer<float> single(block.spec, block.tensors<float>());
    const tensor<float, 2> hidden = xt::cast<float>(x);
    auto cache = single.make_cache(62);
    CHECK(cache.shape().index_size == 20);
    for (const auto& [begin, end] : {std::pair<std::size_t, std::size_t>{0, 15}, {15, 16}, {16, 61}, {61, 62}}) {
        const auto part = single.forward(rows(hidden, begin, end), cache);
        CHECK(relative_error(part.out, rows(single.forward(hidden).out, begin, end)) <= 1e-5);
        for (std::size_t t = begin; t < end && !part.selection.empty(); ++t)
            CHECK(list_of(part.selection, t - begin) == list_of(whole.selection, t));
    }
    // Up to 15 tokens all three pools are seen, and so is the rest.
    CHECK(single.forward(rows(hidden, 0, 15)).selection.empty());
    CHECK_FALSE(single.forward(rows(hidden, 0, 16)).selection.empty());
}

TEST_CASE("indexer: sequences longer than its blocks of keys and of tokens, in one pass, in parts and on threads") {
    random_source random(10);
    const matrix x = larql::testing::random_matrix(random, 2300, 24);
    const sparse_block block({.top_k = 40, .heads = 2, .head_dim = 6, .k_norm = layer_norm});
    const attention_layer<double> layer(block.spec, block.tensors<double>());
    larql::thread_pool pool(3);
    larql::serial_executor serial;
    const auto whole = layer.forward(x, &pool);
    CHECK(list_of(whole.selection, 2299) == top<double>(40, block.last_scores(x)));
    CHECK(list_of(whole.selection, 20).size() == 21);
    CHECK(list_of(whole.selection, 40).size() == 40);
    CHECK(layer.forward(x, &serial).selection.keys == whole.selection.keys);
}

TEST_CASE("indexer: up to top_k tokens a sparse block is a plain one") {
    random_source random(11);
    const matrix x = larql::testing::random_matrix(random, 13, 24);
    const sparse_block block({.top_k = 13, .heads = 3, .head_dim = 10, .k_norm = layer_norm});
    attention_spec plain = block.spec;
    plain.indexer = {};
    const attention_layer<double> sparse(block.spec, block.tensors<double>());
    const attention_layer<double> dense(
        plain, larql::to_attention_weights<double>(larql::testing::factors_of<double>(block.w), block.o));
    const auto got = sparse.forward(x);
    CHECK(got.selection.empty());
    CHECK(relative_error(got.out, dense.forward(x).out) == 0.0);
}

TEST_CASE("indexer: a cache holds the indexer's keys, in every storage, and forgets them with the rest") {
    const checkpoint model = checkpoint::open(data("hf/deepseek_v32_yarn"));
    const auto reference = reference_of("deepseek_v32_yarn");
    const tensor<float, 2> hidden = reference.read<2>("layer1.hidden"), out = reference.read<2>("layer1.out");
    for (const attention_form form : all_forms) {
        const auto layer = model.attention(1, form);
        auto cache = layer.make_cache(64);
        CHECK(cache.shape().index_size == 20);
        CHECK(cache.bytes_per_token() == 4 * (20 + (form == attention_form::latent ? 24 : 2 * (16 + 6))));
        // A draft of other tokens is rejected, and the true ones follow.
        (void)layer.forward(rows(hidden, 0, 30), cache);
        (void)layer.forward(rows(hidden, 5, 15), cache);
        cache.truncate(30);
        CHECK(relative_error(layer.forward(rows(hidden, 30, 43), cache).out, rows(out, 30, 43)) <= 1e-5);
        CHECK(cache.index_keys().shape()[0] == 43);
        // What does not fit leaves the cache as it was.
        LARQL_CHECK_ERROR(layer.forward(hidden, cache), errc::limit_exceeded, "holds 43 tokens");
        CHECK(cache.size() == 43);
        // Rounded keys may select others; the same from the same keys.
        auto small = layer.make_cache<larql::bf16>(43), again = layer.make_cache<larql::bf16>(43);
        const auto once = layer.forward(hidden, small);
        (void)layer.forward(rows(hidden, 0, 42), again);
        const auto last = layer.forward(rows(hidden, 42, 43), again);
        CHECK(list_of(last.selection, 0) == list_of(once.selection, 42));
        CHECK(relative_error(last.out, rows(once.out, 42, 43)) <= 1e-5);
    }
    const auto layer = model.attention(1, attention_form::latent);
    auto plain = larql::kv_cache<float>::latent(8, 16, 8);
    LARQL_CHECK_ERROR(layer.forward(hidden, plain), errc::shape_mismatch,
                      "cache: the layer caches 1 heads of 24/16 and an indexer's key of 20, latent, the cache holds");
}

TEST_CASE("kv_cache: keys of an indexer are all or nothing with the rest") {
    larql::kv_cache<float> cache({.capacity = 3, .kv_heads = 2, .key_size = 4, .value_size = 5, .index_size = 6});
    const tensor<float, 3> k({2, 2, 4}, 1.0F), v({2, 2, 5}, 2.0F), index({2, 1, 6}, 3.0F), one({1, 1, 6}, 4.0F),
        narrow({2, 1, 5}, 4.0F);
    LARQL_CHECK_ERROR(cache.append(k, v), errc::shape_mismatch, "kv_cache: has keys of an indexer");
    LARQL_CHECK_ERROR(cache.append_indexed(narrow, k, v), errc::shape_mismatch, "index: key size 5, the cache has 6");
    LARQL_CHECK_ERROR(cache.append_indexed(one, k, v), errc::shape_mismatch, "index: 1 tokens, k has 2");
    CHECK(cache.empty());
    cache.append_indexed(index, k, v);
    CHECK(cache.size() == 2);
    CHECK(cache.index_keys()(1, 0, 5) == 3.0F);
    LARQL_CHECK_ERROR(cache.append_indexed(index, k, v), errc::limit_exceeded, "kv_cache: holds 2 tokens");
    larql::kv_cache<float> moved = std::move(cache);
    CHECK(moved.index_keys()(0, 0, 0) == 3.0F);
    larql::kv_cache<float> plain({.capacity = 3, .kv_heads = 2, .key_size = 4, .value_size = 5});
    LARQL_CHECK_ERROR(plain.append_indexed(index, k, v), errc::shape_mismatch, "index: key size 6, the cache has 0");
}

TEST_CASE("indexer: a block that shares a selection needs one, once there is something to select") {
    const checkpoint model = checkpoint::open(data("hf/glm_moe_dsa"));
    const tensor<float, 2> hidden = reference_of("glm_moe_dsa").read<2>("layer2.hidden");
    const auto own = model.attention(1, attention_form::latent), shared = model.attention(2, attention_form::latent);
    CHECK(own.spec().indexer.own());
    CHECK(shared.spec().indexer.shared);
    CHECK(shared.make_cache(4).shape().index_size == 0);
    const std::string text = "selection: the block shares another's selection of 9 of 43 keys, and none is given";
    LARQL_CHECK_ERROR(shared.forward(hidden), errc::bad_value, text);
    const key_selection none;
    LARQL_CHECK_ERROR(shared.forward(hidden, {.selection = &none}), errc::bad_value, text);
    CHECK(shared.forward(rows(hidden, 0, 9)).selection.empty());
    const key_selection made = own.forward(hidden).selection;
    CHECK(shared.forward(hidden, {.selection = &made}).selection.keys == made.keys);
    LARQL_CHECK_ERROR(own.forward(hidden, {.selection = &made}), errc::bad_value,
                      "selection: is given, and the block has no use for it");
    LARQL_CHECK_ERROR(shared.forward(rows(hidden, 0, 12), {.selection = &made}), errc::shape_mismatch,
                      "key_lists: 43 lists, q has 12 tokens");
    auto cache = shared.make_cache(50);
    LARQL_CHECK_ERROR(shared.forward(hidden, cache), errc::bad_value, text);
    CHECK(cache.empty());
}

TEST_CASE("indexer: which blocks share, as the configuration says") {
    json config = larql::read_config_json(data("hf/glm_moe_dsa/config.json"));
    config["num_hidden_layers"] = 11;
    config.erase("layer_types");
    const auto types = [&](const json& more) {
        json stated = config;
        stated.update(more);
        if (more.empty() || !more.contains("indexer_types")) stated.erase("indexer_types");
        std::string text;
        for (const attention_spec& block : larql::parse_model_config(stated).blocks)
            text += block.indexer.shared ? 'S' : block.indexer.any() ? 'F' : '-';
        return text;
    };
    CHECK(types(json::object()) == "FFFFFFFFFFF");
    // transformers 5.24 GlmMoeDsaConfig, and what GLM-5.2 states in both ways.
    CHECK(types({{"index_topk_freq", 4}, {"index_skip_topk_offset", 3}}) == "FFFSSSFSSSF");
    CHECK(types({{"index_topk_freq", 4}}) == "FFSSSFSSSFS");
    CHECK(types({{"index_topk_freq", 0}}) == "FFFFFFFFFFF");
    CHECK(types({{"index_topk_pattern", "FSSFSSFSSFS"}, {"index_topk_freq", 4}}) == "FSSFSSFSSFS");
    CHECK(types({{"index_topk_pattern", nullptr}}) == "FFFFFFFFFFF");
    LARQL_CHECK_ERROR(types({{"index_topk_pattern", "FSX"}}), errc::bad_value,
                      "index_topk_pattern: expected 11 entries, got 3");
    LARQL_CHECK_ERROR(types({{"index_topk_pattern", "SFFFFFFFFFF"}}), errc::bad_value,
                      "index_topk_pattern: layer 0 is \"shared\"");
    LARQL_CHECK_ERROR(types({{"index_topk_pattern", "FXFFFFFFFFF"}}), errc::not_understood,
                      "indexer type \"X\" is unknown");
    LARQL_CHECK_ERROR(types({{"indexer_types", {"full"}}}), errc::bad_value, "indexer_types: expected 11 entries");
    LARQL_CHECK_ERROR(types({{"indexer_rope_interleave", false}}), errc::not_understood,
                      "indexer_rope_interleave is false, and the indexer of \"glm_moe_dsa\" is interleaved");
    CHECK(types({{"indexer_rope_interleave", true}}) == "FFFFFFFFFFF");
    LARQL_CHECK_ERROR(types({{"index_head_dim", 6}}), errc::bad_value,
                      "index_head_dim: expected at least the 8 elements that rotate, got 6");
    LARQL_CHECK_ERROR(types({{"q_lora_rank", nullptr}}), errc::bad_value, "q_lora_rank: is null or 0");
    LARQL_CHECK_ERROR(types({{"index_topk", nullptr}}), errc::missing_key, "index_topk: required and null");
    CHECK(types({{"layer_types", std::vector<std::string>(11, "deepseek_sparse_attention")}}) == "FFFFFFFFFFF");
    LARQL_CHECK_ERROR(types({{"layer_types", std::vector<std::string>(11, "sliding_attention")}}), errc::not_understood,
                      "layer_types");
}

TEST_CASE("indexer: a family may have indexers in some of its layers only, and windows in others") {
    static constexpr larql::model_family rows[] = {{.name = "mixed",
                                                    .model_types = {"mixed"},
                                                    .kind = larql::attention_kind::mla,
                                                    .windows = larql::window_rule::layer_types,
                                                    .indexer = {.blocks = larql::indexer_blocks::layer_types,
                                                                .k_norm = {.kind = larql::norm_kind::layer},
                                                                .default_heads = 5},
                                                    .default_rope_theta = 100.0}};
    json config = larql::read_config_json(data("hf/deepseek_v32_yarn/config.json"));
    config["model_type"] = "mixed";
    config.erase("architectures");
    config["sliding_window"] = 5;
    config["layer_types"] = {"indexed_attention", "sliding_attention", "full_attention"};
    const auto blocks = larql::parse_model_config(config, {}, {.families = rows}).blocks;
    CHECK(blocks[0].indexer.own());
    CHECK(blocks[0].indexer.k_norm.eps == 1e-3);  // the configuration's
    CHECK(blocks[0].sliding_window == 0);
    CHECK_FALSE(blocks[1].indexer.any());
    CHECK(blocks[1].sliding_window == 5);
    CHECK_FALSE(blocks[2].indexer.any());
    config.erase("layer_types");
    LARQL_CHECK_ERROR(larql::parse_model_config(config, {}, {.families = rows}), errc::missing_key,
                      "layer_types: required and absent");
}

TEST_CASE("indexer: absent sizes are the class's, and other families have none") {
    json config = larql::read_config_json(data("hf/deepseek_v32_yarn/config.json"));
    for (const char* key : {"index_topk", "index_n_heads", "index_head_dim"}) config.erase(key);
    const larql::indexer_spec v32 = larql::parse_model_config(config).blocks[2].indexer;
    CHECK(v32.top_k == 2048);
    CHECK(v32.heads == 64);
    CHECK(v32.head_dim == 128);
    CHECK(v32.pairing == larql::rope_pairing::half_split);
    CHECK(v32.k_norm.eps == 1e-6);
    config["model_type"] = "glm_moe_dsa";
    config["architectures"] = {"GlmMoeDsaForCausalLM"};
    CHECK(larql::parse_model_config(config).blocks[0].indexer.heads == 32);
    config["model_type"] = "deepseek_v32";
    config["architectures"] = {"DeepseekV32ForCausalLM"};
    config["index_topk_freq"] = 4;
    LARQL_CHECK_ERROR(larql::parse_model_config(config), errc::not_understood,
                      "index_topk_freq is 4, which \"deepseek_v32\" does not have");
    config.erase("index_topk_freq");
    config["model_type"] = "deepseek_v3";
    config["architectures"] = {"DeepseekV3ForCausalLM"};
    config["index_topk"] = 2048;
    config.erase("layer_types");
    LARQL_CHECK_ERROR(larql::parse_model_config(config), errc::not_understood,
                      "index_topk is 2048, which \"deepseek_v3\" does not have");
}

TEST_CASE("indexer: pools in a configuration, and layers without attention between those that select") {
    const json published = larql::read_config_json(data("hf/glm5_next/config.json"));
    const auto read = [&](const json& more) {
        json stated = published;
        stated.update(more);
        return larql::parse_model_config(stated).blocks;
    };
    const auto blocks = read(json::object());
    CHECK(blocks.size() == 3);
    CHECK(blocks[0].indexer.pool == 4);
    CHECK(blocks[1].layer == 2);
    CHECK(blocks[1].indexer.own());
    CHECK(blocks[2].indexer.shared);
    json without = published;
    without.erase("index_kpool");
    without["index_topk"] = 64;
    CHECK(larql::parse_model_config(without).blocks[0].indexer.pool == 16);
    LARQL_CHECK_ERROR(read({{"index_topk", 10}}), errc::bad_value,
                      "index_topk: expected a multiple of the 4 keys of a pool, got 10");
    LARQL_CHECK_ERROR(read({{"index_kpool_always_select_tail", false}}), errc::not_understood,
                      "tokens before the end of the first pool would see no key");
    LARQL_CHECK_ERROR(read({{"indexer_types", {"full", "full", "shared"}}}), errc::bad_value,
                      "indexer_types: expected 4 entries, got 3");
    LARQL_CHECK_ERROR(read({{"indexer_types", {"shared", "full", "full", "full"}}}), errc::bad_value,
                      "indexer_types: layer 0 is");
    json v32 = larql::read_config_json(data("hf/deepseek_v32_yarn/config.json"));
    v32["index_kpool"] = 4;
    LARQL_CHECK_ERROR(larql::parse_model_config(v32), errc::not_understood,
                      "index_kpool is 4, which \"deepseek_v32\" does not have");
    v32.erase("index_kpool");
    v32["qk_rope_head_dim"] = 0;
    LARQL_CHECK_ERROR(larql::parse_model_config(v32), errc::bad_value,
                      "qk_rope_head_dim: is 0, and \"deepseek_v32\" rotates a part of its heads");
}

TEST_CASE("indexer: costs count its projections, its cached keys and its scores") {
    const checkpoint model = checkpoint::open(data("hf/deepseek_v32_yarn"));
    attention_spec plain = model.spec(0);
    plain.indexer = {};
    const larql::attention_cost with = larql::cost_of(model.spec(0), attention_form::latent),
                                without = larql::cost_of(plain, attention_form::latent);
    CHECK(with.weights - without.weights == 100 * 12 + 20 * 24 + 5 * 24);
    CHECK(with.cached_per_token - without.cached_per_token == 20);
    CHECK(with.flops_per_token - without.flops_per_token == 2 * (with.weights - without.weights));
    CHECK(with.flops_per_cached_token - without.flops_per_cached_token == 2 * 5 * 21);
}

TEST_CASE("indexer: what a spec must say") {
    const sparse_block block({.top_k = 13, .heads = 3, .head_dim = 10, .k_norm = layer_norm});
    const auto problem = [&](auto change) {
        attention_spec spec = block.spec;
        change(spec);
        return larql::testing::error_of([&] { (void)attention_layer<double>(spec, block.tensors<double>()); });
    };
    LARQL_CHECK_ERROR_TEXT(problem([](attention_spec& s) { s.indexer.heads = 0; }), errc::bad_value,
                           "attention_spec::indexer: expected heads");
    LARQL_CHECK_ERROR_TEXT(problem([](attention_spec& s) { s.indexer.head_dim = 2; }), errc::bad_value,
                           "attention_spec::indexer: expected heads of at least the 4 elements");
    LARQL_CHECK_ERROR_TEXT(problem([](attention_spec& s) { s.indexer.k_norm.eps = 0.0; }), errc::bad_value,
                           "attention_spec::indexer.k_norm.eps");
    LARQL_CHECK_ERROR_TEXT(problem([](attention_spec& s) { s.indexer.k_norm.has_bias = false; }), errc::bad_value,
                           "indexer_k_norm_bias: is given, and the block has no use for it");
    LARQL_CHECK_ERROR_TEXT(problem([](attention_spec& s) { s.indexer.heads = 4; }), errc::shape_mismatch,
                           "indexer_q_b: expected [40, 12], got [30, 12]");
}
