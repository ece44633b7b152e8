// SPDX-License-Identifier: Apache-2.0
#include <larql/attention_layer.hpp>
#include <larql/detail/mla/expanded.hpp>
#include <support/reference_attention.hpp>
#include <support/reference_mla.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <string>
#include <thread>
#include <vector>

namespace {

using larql::attention_form;
using larql::attention_layer;
using larql::attention_spec;
using larql::attention_weights;
using larql::head_order;
using larql::mla_geometry;
using larql::rope_pairing;
using larql::tensor;
using larql::tensor_role;
using larql::testing::factors_of;
using larql::testing::layer_tensors;
using larql::testing::matrix;
using larql::testing::random_source;
using larql::testing::relative_error;

constexpr double eps = 1e-3;  // large enough to show where it is left out

constexpr mla_geometry geometry{.hidden_size = 40,
                                .num_heads = 3,
                                .q_lora_rank = 24,
                                .kv_lora_rank = 20,
                                .qk_nope_head_dim = 6,
                                .qk_rope_head_dim = 8,
                                .v_head_dim = 10};

/// Rotates the interleaved pairs of the last elements of every head by hand.
void rotate(tensor<double, 3>& x, std::size_t begin, const larql::rope_table& rope, std::size_t first) {
    for (std::size_t t = 0; t < x.shape(0); ++t)
        for (std::size_t h = 0; h < x.shape(1); ++h)
            for (std::size_t j = 0; j < rope.frequencies.size(); ++j) {
                const double angle = static_cast<double>(first + t) * rope.frequencies[j];
                double &a = x(t, h, begin + 2 * j), &b = x(t, h, begin + 2 * j + 1);
                const double old = a;
                a = rope.magnitude * (old * std::cos(angle) - b * std::sin(angle));
                b = rope.magnitude * (old * std::sin(angle) + b * std::cos(angle));
            }
}

struct block {
    mla_geometry g;
    layer_tensors w;
    matrix o;
    larql::testing::vector o_bias;
    attention_spec spec;

    explicit block(const mla_geometry& geometry_, std::uint64_t seed = 21, bool biases = true)
        : g(geometry_), w(larql::testing::random_layer(g, seed, true, biases)) {
        random_source random(seed + 1);
        o = larql::testing::random_matrix(random, g.hidden_size, g.num_heads * g.v_head_dim, 0.2);
        o_bias = larql::testing::random_vector(random, g.hidden_size, 0.0, 1.0);
        spec = {.form = attention_form::factored,
                .geometry = g,
                .rope = {.rotary_dim = 8, .theta = 80.0, .magnitude_factor = 1.25},
                .scale = 0.31,
                .latent_norm = {.kind = larql::norm_kind::rms, .eps = eps}};
    }

    template <class T>
    [[nodiscard]] attention_layer<T> layer(attention_form form) const {
        attention_spec s = spec;
        s.form = form;
        const auto converted = [&](auto made) {
            s.geometry.order = made.order;
            s.geometry.pairing = made.pairing;
            return attention_layer<T>(s, larql::to_attention_weights<T>(std::move(made), o, o_bias));
        };
        if (form == attention_form::dense) return converted(larql::absorb(factors_of<T>(w), g));
        if (form == attention_form::latent) return converted(larql::absorb_latent(factors_of<T>(w), g));
        return {s, larql::to_attention_weights<T>(factors_of<T>(w), o, o_bias)};
    }

    /// The latent form from the factors as published.
    template <class T>
    [[nodiscard]] attention_layer<T> published(larql::latent_factors from) const {
        attention_spec s = spec;
        s.form = attention_form::latent;
        s.latent_from = from;
        auto weights = larql::to_attention_weights<T>(factors_of<T>(w), o, o_bias);
        if (from == larql::latent_factors::split) {
            auto parts = larql::split_kv_b<T>(weights[tensor_role::kv_b], g);
            weights[tensor_role::kv_b] = {};
            weights[tensor_role::k_b] = larql::detail::flatten_heads(std::move(parts.k_b));
            weights[tensor_role::v_b] = larql::detail::flatten_heads(std::move(parts.v_b));
        }
        return {s, std::move(weights)};
    }

    /// Context and output by the formula.
    [[nodiscard]] std::pair<matrix, matrix> reference(const matrix& x) const {
        auto p = larql::testing::reference_projections(x, w, g, eps);
        const larql::rope_table rope = larql::make_rope_table(spec.rope);
        rotate(p.q, g.qk_nope_head_dim, rope, 0);
        rotate(p.k, g.qk_nope_head_dim, rope, 0);
        matrix context = matrix::from_shape({x.shape(0), g.num_heads * g.v_head_dim});
        const larql::attention_options options{.scale = spec.scale};
        for (std::size_t t = 0; t < x.shape(0); ++t)
            for (std::size_t h = 0; h < g.num_heads; ++h) {
                const auto row = larql::testing::reference_row<double>(p.q, p.k, p.v, options, t, h);
                for (std::size_t i = 0; i < g.v_head_dim; ++i) context(t, h * g.v_head_dim + i) = row[i];
            }
        return {context, larql::testing::project(context, o, o_bias)};
    }
};

constexpr attention_form all_forms[] = {attention_form::factored, attention_form::dense, attention_form::latent};

}  // namespace

TEST_CASE("attention_layer: every form computes the formula, in double and in float") {
    for (const std::size_t q_rank : {std::size_t{24}, std::size_t{0}})
        for (const bool biases : {false, true}) {
            mla_geometry g = geometry;
            g.q_lora_rank = q_rank;
            const block b(g, 30 + q_rank, biases);
            random_source random(5);
            const matrix x = larql::testing::random_matrix(random, 9, g.hidden_size);
            const auto [context, out] = b.reference(x);
            for (const attention_form form : all_forms) {
                CAPTURE(larql::to_string(form));
                const auto exact = b.layer<double>(form).forward(x);
                CHECK(relative_error(exact.context, context) < 1e-12);
                CHECK(relative_error(exact.out, out) < 1e-12);
                const auto single = b.layer<float>(form).forward(x);
                CHECK(relative_error(single.context, context) < 1e-5);
                CHECK(relative_error(single.out, out) < 1e-5);
            }
        }
}

TEST_CASE("attention_layer: latent form computes from the published factors, few tokens and many") {
    mla_geometry narrow = geometry, wide = geometry;
    narrow.kv_lora_rank = 8;
    wide.kv_lora_rank = 64;  // many tokens pass through keys and values of the heads' own
    for (const mla_geometry& g : {narrow, wide})
        for (const std::size_t tokens : {std::size_t{9}, std::size_t{120}})
            for (const auto from : {larql::latent_factors::kv_b, larql::latent_factors::split}) {
                CAPTURE(g.kv_lora_rank);
                CAPTURE(tokens);
                CAPTURE(from == larql::latent_factors::kv_b);
                const block b(g, 40);
                random_source random(15);
                const matrix x = larql::testing::random_matrix(random, tokens, g.hidden_size);
                const auto [context, out] = b.reference(x);
                const auto exact = b.published<double>(from);
                CHECK(larql::detail::expanded_attention<double>::pays(exact.spec(), tokens, tokens) ==
                      (tokens == 120 && g.kv_lora_rank == 64));
                CHECK(relative_error(exact.forward(x).context, context) < 1e-12);
                const auto layer = b.published<float>(from);
                const auto whole = layer.forward(x);
                CHECK(relative_error(whole.context, context) < 1e-5);
                CHECK(relative_error(whole.out, out) < 1e-5);
                CHECK(whole.q.shape() == tensor<float, 3>::shape_type{tokens, 3, g.kv_lora_rank + 8});

                auto cache = layer.make_cache<float>(tokens);  // the last two thirds behind the first
                const std::size_t first = tokens / 3;
                matrix head = matrix::from_shape({first, g.hidden_size}), rest = x;
                std::copy_n(x.data(), head.size(), head.data());
                rest = matrix::from_shape({tokens - first, g.hidden_size});
                std::copy_n(x.data() + head.size(), rest.size(), rest.data());
                const auto before = layer.forward(head, cache).context, after = layer.forward(rest, cache).context;
                std::vector<float> got(before.begin(), before.end());
                got.insert(got.end(), after.begin(), after.end());
                CHECK(relative_error(got, context) < 1e-5);
            }
}

TEST_CASE("attention_layer: tensors that the published latent form does not compute from are refused") {
    const block b(geometry);
    const auto with = [&](auto change) {
        attention_spec s = b.spec;
        s.form = attention_form::latent;
        s.latent_from = larql::latent_factors::kv_b;
        auto weights = larql::to_attention_weights<float>(factors_of<float>(b.w), b.o, b.o_bias);
        change(s, weights);
        return [=] { return attention_layer<float>(s, weights); };
    };
    CHECK_NOTHROW(with([](auto&, auto&) {})());
    CHECK_THROWS_AS(with([](auto& s, auto&) { s.latent_from = larql::latent_factors::split; })(), larql::error);
    CHECK_THROWS_AS(with([](auto& s, auto&) { s.latent_from = larql::latent_factors::folded; })(), larql::error);
    CHECK_THROWS_AS(with([](auto&, auto& w) { w.vector(tensor_role::kv_a_norm) = {}; })(), larql::error);
    CHECK_THROWS_AS(with([](auto&, auto& w) { w[tensor_role::kv_b] = {}; })(), larql::error);
}

TEST_CASE("attention_layer: shapes of what each form computes and caches") {
    const block b(geometry);
    random_source random(6);
    const matrix x = larql::testing::random_matrix(random, 4, geometry.hidden_size);
    const auto dense = b.layer<float>(attention_form::dense).forward(x);
    CHECK(dense.q.shape() == tensor<float, 3>::shape_type{4, 3, 14});
    CHECK(dense.k.shape() == tensor<float, 3>::shape_type{4, 3, 14});
    CHECK(dense.v.shape() == tensor<float, 3>::shape_type{4, 3, 10});
    const auto latent = b.layer<float>(attention_form::latent).forward(x);
    CHECK(latent.q.shape() == tensor<float, 3>::shape_type{4, 3, 28});
    CHECK(latent.k.shape() == tensor<float, 3>::shape_type{4, 1, 28});
    CHECK(latent.v.shape() == tensor<float, 3>::shape_type{4, 1, 20});
    CHECK(latent.context.shape() == tensor<float, 2>::shape_type{4, 30});
    CHECK(latent.out.shape() == tensor<float, 2>::shape_type{4, 40});
}

TEST_CASE("attention_layer: no tokens give no rows, in the shapes of each form, and leave a cache as it was") {
    const block b(geometry);
    random_source random(6);
    const matrix x = larql::testing::random_matrix(random, 2, geometry.hidden_size);
    const matrix none = matrix::from_shape({0, geometry.hidden_size});
    for (const attention_form form : all_forms) {
        CAPTURE(larql::to_string(form));
        const auto layer = b.layer<float>(form);
        auto cache = layer.make_cache(2);
        const auto check = [&](const auto& got, const auto& some) {
            const auto same = [](auto shape, const auto& other) {
                shape[0] = 0;
                CHECK(shape == other);
            };
            same(some.q.shape(), got.q.shape());
            same(some.k.shape(), got.k.shape());
            same(some.v.shape(), got.v.shape());
            same(some.context.shape(), got.context.shape());
            same(some.out.shape(), got.out.shape());
        };
        const auto some = layer.forward(x);
        check(layer.forward(none), some);
        check(layer.forward(none, cache), some);
        CHECK(cache.empty());
        (void)layer.forward(x, cache);
        check(layer.forward(none, cache), some);  // a full one takes nothing
        CHECK(cache.size() == 2);
    }
}

TEST_CASE("attention_layer: appending to a cache token by token gives what one pass gives, in every form and storage") {
    const block b(geometry);
    random_source random(7);
    const std::size_t tokens = 11;
    const matrix x = larql::testing::random_matrix(random, tokens, geometry.hidden_size);
    const auto check = [&]<class Storage>(Storage, attention_form form, double tolerance) {
        const auto layer = b.layer<float>(form);
        const auto whole = layer.forward(x);
        auto cache = layer.template make_cache<Storage>(tokens);
        std::vector<float> got, want;
        for (std::size_t t = 0; t < tokens;) {
            const std::size_t count = t == 0 ? 4 : 1;
            matrix step = matrix::from_shape({count, geometry.hidden_size});
            std::copy_n(x.data() + t * geometry.hidden_size, step.size(), step.data());
            const auto r = layer.forward(step, cache);
            got.insert(got.end(), r.context.begin(), r.context.end());
            t += count;
        }
        CHECK(relative_error(got, whole.context) < tolerance);
    };
    for (const attention_form form : all_forms) {
        CAPTURE(larql::to_string(form));
        check(float{}, form, 1e-5);        // two orders of the same float sums, as above
        check(larql::f16{}, form, 1e-2);   // 11 bits of keys and values
        check(larql::bf16{}, form, 5e-2);  // 8 bits
    }
}

TEST_CASE("attention_layer: one layer serves several threads at once, each with a cache, on one pool") {
    const block b(geometry);
    random_source random(12);
    const matrix x = larql::testing::random_matrix(random, 6, geometry.hidden_size);
    larql::thread_pool pool(2);
    for (const attention_form form : all_forms) {
        const auto layer = b.layer<float>(form);
        const auto whole = layer.forward(x);
        std::vector<double> errors(4, 1.0);
        std::vector<std::thread> callers;
        for (double& worst : errors)
            callers.emplace_back([&] {
                auto cache = layer.make_cache(6);
                std::vector<float> got;
                for (std::size_t t = 0; t < 6; ++t) {
                    matrix step = matrix::from_shape({1, geometry.hidden_size});
                    std::copy_n(x.data() + t * geometry.hidden_size, step.size(), step.data());
                    const auto r = layer.forward(step, cache, &pool);
                    got.insert(got.end(), r.out.begin(), r.out.end());
                }
                worst = relative_error(got, whole.out);
            });
        for (std::thread& caller : callers) caller.join();
        for (const double worst : errors) CHECK(worst < 1e-5);
    }
}

TEST_CASE("attention_layer: a query's temperature grows with its position, in every form") {
    const block b(geometry);
    random_source random(13);
    const matrix x = larql::testing::random_matrix(random, 9, geometry.hidden_size);
    const larql::query_temperature rule{.scale = 0.4, .length = 3.0, .offset = 1.0};
    auto p = larql::testing::reference_projections(x, b.w, geometry, eps);
    const larql::rope_table rope = larql::make_rope_table(b.spec.rope);
    rotate(p.q, geometry.qk_nope_head_dim, rope, 0);
    rotate(p.k, geometry.qk_nope_head_dim, rope, 0);
    for (std::size_t t = 0; t < 9; ++t)
        for (std::size_t h = 0; h < geometry.num_heads; ++h)
            for (std::size_t i = 0; i < geometry.qk_head_dim(); ++i)
                p.q(t, h, i) *= 1.0 + 0.4 * std::log(1.0 + std::floor((static_cast<double>(t) + 1.0) / 3.0));
    matrix context = matrix::from_shape({9, geometry.num_heads * geometry.v_head_dim});
    for (std::size_t t = 0; t < 9; ++t)
        for (std::size_t h = 0; h < geometry.num_heads; ++h) {
            const auto row = larql::testing::reference_row<double>(p.q, p.k, p.v, {.scale = b.spec.scale}, t, h);
            for (std::size_t i = 0; i < geometry.v_head_dim; ++i) context(t, h * geometry.v_head_dim + i) = row[i];
        }
    block warm = b;
    warm.spec.temperature = rule;
    for (const attention_form form : all_forms) {
        CAPTURE(larql::to_string(form));
        CHECK(relative_error(warm.layer<double>(form).forward(x).context, context) < 1e-12);
    }
}

TEST_CASE("attention_layer: norms of heads, after rotation, over all heads, centred, with an offset") {
    const std::size_t tokens = 4, width = 10, heads = 3, dim = 4;
    random_source random(14);
    using larql::testing::random_matrix;
    const matrix x = random_matrix(random, tokens, width), q = random_matrix(random, heads * dim, width),
                 k = random_matrix(random, heads * dim, width), v = random_matrix(random, heads * dim, width),
                 o = random_matrix(random, width, heads * dim);
    const auto gains = larql::testing::random_vector(random, heads * dim, 0.0, 0.5);
    attention_spec spec{.kind = larql::attention_kind::gqa,
                        .geometry = {.hidden_size = width,
                                     .num_heads = heads,
                                     .qk_rope_head_dim = dim,
                                     .v_head_dim = dim,
                                     .order = head_order::rope_nope,
                                     .pairing = rope_pairing::interleaved},
                        .rope = {.rotary_dim = dim, .theta = 100.0},
                        .scale = 0.7,
                        .softcap = 5.0};
    spec.q_norm = {.kind = larql::norm_kind::layer, .per_head = false, .gain_offset = 1.0, .eps = eps};
    spec.k_norm = {.kind = larql::norm_kind::rms, .has_gain = false, .after_rope = true, .eps = eps};
    attention_weights<double> w;
    w[tensor_role::q] = q;
    w[tensor_role::k] = k;
    w[tensor_role::v] = v;
    w[tensor_role::o] = o;
    w.vector(tensor_role::q_norm) = gains;
    const auto got = attention_layer<double>(spec, w).forward(x);

    const auto in_heads = [&](const matrix& flat) {
        auto out = tensor<double, 3>::from_shape({tokens, heads, dim});
        std::copy(flat.begin(), flat.end(), out.begin());
        return out;
    };
    matrix normed = larql::testing::project(x, q);
    for (std::size_t t = 0; t < tokens; ++t) {
        double mean = 0.0, variance = 0.0;
        for (std::size_t i = 0; i < heads * dim; ++i) mean += normed(t, i) / (heads * dim);
        for (std::size_t i = 0; i < heads * dim; ++i) variance += std::pow(normed(t, i) - mean, 2) / (heads * dim);
        for (std::size_t i = 0; i < heads * dim; ++i)
            normed(t, i) = (normed(t, i) - mean) / std::sqrt(variance + eps) * (1.0 + gains(i));
    }
    auto q3 = in_heads(normed), k3 = in_heads(larql::testing::project(x, k));
    const auto v3 = in_heads(larql::testing::project(x, v));
    const larql::rope_table rope = larql::make_rope_table(spec.rope);
    rotate(q3, 0, rope, 0);
    rotate(k3, 0, rope, 0);
    for (std::size_t t = 0; t < tokens; ++t)
        for (std::size_t h = 0; h < heads; ++h) {
            double squares = 0.0;
            for (std::size_t i = 0; i < dim; ++i) squares += k3(t, h, i) * k3(t, h, i) / dim;
            for (std::size_t i = 0; i < dim; ++i) k3(t, h, i) /= std::sqrt(squares + eps);
        }
    for (std::size_t t = 0; t < tokens; ++t)
        for (std::size_t h = 0; h < heads; ++h) {
            const auto row = larql::testing::reference_row<double>(q3, k3, v3, {.scale = 0.7, .softcap = 5.0}, t, h);
            for (std::size_t i = 0; i < dim; ++i)
                CHECK(got.context(t, h * dim + i) == doctest::Approx(row[i]).epsilon(1e-12));
        }
}

TEST_CASE("attention_layer: plain grouped attention with partial rotation and biases") {
    const std::size_t tokens = 5, width = 12, heads = 4, kv_heads = 2, dim = 6, rotated = 4;
    random_source random(8);
    using larql::testing::random_matrix;
    const matrix x = random_matrix(random, tokens, width), q = random_matrix(random, heads * dim, width),
                 k = random_matrix(random, kv_heads * dim, width), v = random_matrix(random, kv_heads * dim, width),
                 o = random_matrix(random, width, heads * dim);
    const auto q_bias = larql::testing::random_vector(random, heads * dim, 0.0, 1.0);
    const attention_spec spec{.kind = larql::attention_kind::gqa,
                              .geometry = {.hidden_size = width,
                                           .num_heads = heads,
                                           .num_kv_heads = kv_heads,
                                           .qk_nope_head_dim = dim - rotated,
                                           .qk_rope_head_dim = rotated,
                                           .v_head_dim = dim,
                                           .order = head_order::rope_nope,
                                           .pairing = rope_pairing::interleaved},
                              .rope = {.rotary_dim = rotated, .theta = 100.0},
                              .scale = 0.4};
    attention_weights<double> w;
    w[tensor_role::q] = q;
    w.bias(tensor_role::q) = q_bias;
    w[tensor_role::k] = k;
    w[tensor_role::v] = v;
    w[tensor_role::o] = o;
    const auto got = attention_layer<double>(spec, w).forward(x);

    const auto heads_of = [&](const matrix& flat, std::size_t count) {
        auto out = tensor<double, 3>::from_shape({tokens, count, dim});
        std::copy(flat.begin(), flat.end(), out.begin());
        return out;
    };
    auto q3 = heads_of(larql::testing::project(x, q, q_bias), heads);
    auto k3 = heads_of(larql::testing::project(x, k), kv_heads);
    const auto v3 = heads_of(larql::testing::project(x, v), kv_heads);
    const larql::rope_table rope = larql::make_rope_table(spec.rope);
    rotate(q3, 0, rope, 0);
    rotate(k3, 0, rope, 0);
    const larql::attention_options options{.scale = 0.4};
    for (std::size_t t = 0; t < tokens; ++t)
        for (std::size_t h = 0; h < heads; ++h) {
            const auto row = larql::testing::reference_row<double>(q3, k3, v3, options, t, h);
            for (std::size_t i = 0; i < dim; ++i)
                CHECK(got.context(t, h * dim + i) == doctest::Approx(row[i]).epsilon(1e-12));
        }
    CHECK(relative_error(got.out, larql::testing::project(matrix(got.context), o)) < 1e-13);
}

TEST_CASE("attention_layer: names the tensor that is missing or does not fit") {
    const block b(geometry);
    attention_weights<double> t;
    CHECK_THROWS_WITH_AS((attention_layer<double>{b.spec, t}), "q_a: required and not given", larql::error);
    const auto layer = b.layer<double>(attention_form::dense);
    const matrix narrow = matrix::from_shape({1, 39});
    CHECK_THROWS_WITH_AS((void)layer.forward(narrow), "x: expected hidden states of width 40, got 39", larql::error);
    attention_spec dense = b.spec;
    dense.form = attention_form::dense;
    auto f = factors_of<double>(b.w);
    t[tensor_role::q_a] = f.q_a;
    t[tensor_role::q] = f.q_b;
    CHECK_THROWS_WITH_AS((attention_layer<double>{dense, t}), "q: expected [42, 40], got [42, 24]", larql::error);
    attention_weights<double> whole = larql::to_attention_weights<double>(factors_of<double>(b.w), b.o, b.o_bias);
    attention_spec biased = b.spec;
    biased.biases = {tensor_role::q_a, tensor_role::kv_a, tensor_role::o};
    CHECK_NOTHROW((attention_layer<double>{biased, whole}));
    whole.bias(tensor_role::q_a) = {};
    CHECK_THROWS_WITH_AS((attention_layer<double>{biased, whole}), "q_a_bias: required and not given", larql::error);
    const auto refused = [&](auto change) {
        attention_spec s = b.spec;
        change(s);
        CHECK_THROWS_AS((attention_layer<double>{s, larql::to_attention_weights<double>(factors_of<double>(b.w), b.o)}),
                        larql::error);
    };
    refused([](attention_spec& s) { s.scale = 0.0; });
    refused([](attention_spec& s) { s.scale = 1e300; });
    refused([](attention_spec& s) { s.rope.rotary_dim = 4; });
    refused([](attention_spec& s) { s.temperature.scale = 0.1; });
    refused([](attention_spec& s) { s.geometry.num_kv_heads = 2; });
    whole[tensor_role::q] = f.q_b;
    CHECK_THROWS_WITH_AS((attention_layer<double>{b.spec, whole}), "q: is given, and the block has no use for it",
                         larql::error);
}
