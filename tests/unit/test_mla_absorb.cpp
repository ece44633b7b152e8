// SPDX-License-Identifier: Apache-2.0
#include <larql/gqa_attention.hpp>
#include <larql/mla_absorb.hpp>
#include <support/reference_mla.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

#if __has_include(<xtensor/views/xview.hpp>)
#include <xtensor/views/xview.hpp>
#else
#include <xtensor/xview.hpp>
#endif

namespace {

using larql::absorb;
using larql::absorb_latent;
using larql::dense_mla;
using larql::head_order;
using larql::latent_mla;
using larql::mla_geometry;
using larql::rope_pairing;
using larql::tensor;
using larql::testing::factors_of;
using larql::testing::layer_tensors;
using larql::testing::matrix;
using larql::testing::random_source;
using larql::testing::relative_error;
using larql::testing::vector;

constexpr double eps = 1e-6;

/// Element of a reference head [nope | rope] that stands at `i` of a head in another order and pairing.
std::size_t stored_element(const mla_geometry& g, head_order order, rope_pairing pairing, std::size_t i) {
    const std::size_t nope = g.qk_nope_head_dim, rope = g.qk_rope_head_dim;
    const std::size_t rope_begin = order == head_order::rope_nope ? 0 : nope;
    if (i < rope_begin || i >= rope_begin + rope) return order == head_order::rope_nope ? i - rope : i;
    return nope + larql::rope_row_order(rope, g.pairing, pairing)[i - rope_begin];
}

/// Holds a dense layer against the plain reference on random tokens; returns the worst relative error.
template <class T>
double dense_error(const dense_mla<T>& layer, const layer_tensors& w, const mla_geometry& g, std::size_t head_begin,
                   std::size_t heads) {
    random_source random(77);
    const matrix x = larql::testing::random_matrix(random, 3, g.hidden_size);
    const auto want = larql::testing::reference_projections(x, w, g, eps);
    const std::size_t group = g.num_heads / g.kv_heads(), dim = g.qk_head_dim();
    const auto scalars = [&](const tensor<T, 2>& rows, const tensor<T, 1>& bias, bool normed) {
        vector s = vector::from_shape({x.shape(0)});
        s.fill(1.0);
        if (!normed) return s;
        const matrix latent = larql::testing::project(x, matrix(rows), vector(bias));
        return larql::testing::rms_factors(latent, latent.shape(1), eps);
    };
    const vector s_q = scalars(layer.q_a, layer.q_a_bias, w.q_a_norm.size() != 0);
    const vector s_kv = scalars(layer.kv_a, layer.kv_a_bias, w.kv_a_norm.size() != 0);
    const matrix q = larql::testing::project(x, matrix(layer.q), vector(layer.q_bias));
    const matrix k = larql::testing::project(x, matrix(layer.k), vector(layer.k_bias));
    const matrix v = larql::testing::project(x, matrix(layer.v), vector(layer.v_bias));

    std::vector<double> got, expected;
    for (std::size_t t = 0; t < x.shape(0); ++t) {
        for (std::size_t h = 0; h < heads; ++h)
            for (std::size_t i = 0; i < dim; ++i) {
                got.push_back(s_q(t) * q(t, h * dim + i));
                expected.push_back(want.q(t, head_begin + h, stored_element(g, layer.order, layer.pairing, i)));
            }
        for (std::size_t h = 0; h < heads / group; ++h) {
            for (std::size_t i = 0; i < dim; ++i) {
                const std::size_t stored = stored_element(g, layer.order, layer.pairing, i);
                got.push_back((stored < g.qk_nope_head_dim ? s_kv(t) : 1.0) * k(t, h * dim + i));
                expected.push_back(want.k(t, head_begin / group + h, stored));
            }
            for (std::size_t i = 0; i < g.v_head_dim; ++i) {
                got.push_back(s_kv(t) * v(t, h * g.v_head_dim + i));
                expected.push_back(want.v(t, head_begin / group + h, i));
            }
        }
    }
    return relative_error(got, expected);
}

constexpr mla_geometry published{.hidden_size = 40,
                                 .num_heads = 3,
                                 .q_lora_rank = 24,
                                 .kv_lora_rank = 20,
                                 .qk_nope_head_dim = 6,
                                 .qk_rope_head_dim = 8,
                                 .v_head_dim = 10};
// Rounding of a product of about 40 terms, twice, relative to the largest element.
constexpr double double_bound = 1e-13;
constexpr double float_bound = 2e-5;

}  // namespace

TEST_CASE("mla_absorb: dense layers project as the plain reference does, in every order and pairing") {
    for (const bool norms : {true, false})
        for (const bool biases : {true, false}) {
            const layer_tensors w = larql::testing::random_layer(published, 5, norms, biases);
            for (const head_order order : {head_order::rope_nope, head_order::nope_rope})
                for (const rope_pairing pairing : {rope_pairing::half_split, rope_pairing::interleaved}) {
                    const auto layer = absorb(factors_of<double>(w), published, {.order = order, .pairing = pairing});
                    CHECK(layer.order == order);
                    CHECK(layer.pairing == pairing);
                    CHECK(dense_error(layer, w, published, 0, 3) < double_bound);
                    CHECK((layer.q_bias.size() != 0) == biases);
                    const auto single = absorb(factors_of<float>(w), published, {.order = order, .pairing = pairing});
                    CHECK(dense_error(single, w, published, 0, 3) < float_bound);
                }
        }
}

TEST_CASE("mla_absorb: leaving the norms out gives another function, so the comparison would notice") {
    const layer_tensors w = larql::testing::random_layer(published, 5);
    auto without = factors_of<double>(w);
    without.q_a_norm = {};
    without.kv_a_norm = {};
    CHECK(dense_error(absorb(without, published), w, published, 0, 3) > 0.05);
}

TEST_CASE("mla_absorb: a query without latent, half-split storage and [rope | nope] storage") {
    mla_geometry g = published;
    g.q_lora_rank = 0;
    const layer_tensors direct = larql::testing::random_layer(g, 6);
    const auto layer = absorb(factors_of<double>(direct), g);
    CHECK(layer.q_a.size() == 0);
    CHECK(dense_error(layer, direct, g, 0, 3) < double_bound);

    g = published;
    g.pairing = rope_pairing::half_split;
    const layer_tensors w = larql::testing::random_layer(g, 7);
    CHECK(dense_error(absorb(factors_of<double>(w), g), w, g, 0, 3) < double_bound);
    CHECK(dense_error(absorb(factors_of<double>(w), g, {.pairing = rope_pairing::interleaved}), w, g, 0, 3) <
          double_bound);

    // The same query rows stored [rope | nope] give the same layer.
    layer_tensors swapped = w;
    const std::size_t dim = g.qk_head_dim();
    for (std::size_t r = 0; r < swapped.q_b.shape(0); ++r) {
        const std::size_t head = r / dim * dim, i = r % dim;
        const std::size_t from = i < g.qk_rope_head_dim ? g.qk_nope_head_dim + i : i - g.qk_rope_head_dim;
        for (std::size_t c = 0; c < swapped.q_b.shape(1); ++c) swapped.q_b(r, c) = w.q_b(head + from, c);
    }
    mla_geometry other = g;
    other.order = head_order::rope_nope;
    CHECK(absorb(factors_of<double>(swapped), other).q == absorb(factors_of<double>(w), g).q);
}

TEST_CASE("mla_absorb: unrotated models keep their rows' order, and say so") {
    mla_geometry g = published;
    g.pairing = rope_pairing::none;
    g.qk_rope_head_dim = 5;  // odd: allowed as long as nothing rotates
    const layer_tensors w = larql::testing::random_layer(g, 8);
    const auto layer = absorb(factors_of<double>(w), g);
    CHECK(layer.pairing == rope_pairing::none);
    random_source random(77);
    const matrix x = larql::testing::random_matrix(random, 1, g.hidden_size);
    const auto want = larql::testing::reference_projections(x, w, g, eps);
    const matrix k = larql::testing::project(x, matrix(layer.k), vector(layer.k_bias));
    for (std::size_t i = 0; i < 5; ++i) CHECK(k(0, i) == doctest::Approx(want.k(0, 0, 6 + i)));
}

TEST_CASE("mla_absorb: a range of heads is that range of the whole, and fills a caller's views") {
    mla_geometry g = published;
    g.num_heads = 6;
    g.num_kv_heads = 3;
    const layer_tensors w = larql::testing::random_layer(g, 9);
    const auto f = factors_of<double>(w);
    const auto part = absorb(f, g, {.head_begin = 2, .head_end = 6});
    CHECK(part.q.shape(0) == 4 * g.qk_head_dim());
    CHECK(part.v.shape(0) == 2 * g.v_head_dim);
    CHECK(dense_error(part, w, g, 2, 4) < double_bound);
    CHECK_THROWS_AS(absorb(f, g, {.head_begin = 1}), larql::error);

    const auto whole = absorb(f, g);
    matrix all = xt::zeros<double>({6 * g.qk_head_dim() + 3 * (g.qk_head_dim() + g.v_head_dim), g.hidden_size + 3});
    const std::size_t q_end = whole.q.shape(0), k_end = q_end + whole.k.shape(0), v_end = k_end + whole.v.shape(0);
    auto columns = xt::range(std::size_t{1}, g.hidden_size + 1);
    larql::absorb_into(f, g, xt::view(all, xt::range(std::size_t{0}, q_end), columns),
                       xt::view(all, xt::range(q_end, k_end), columns),
                       xt::view(all, xt::range(k_end, v_end), columns));
    CHECK(matrix(xt::view(all, xt::range(std::size_t{0}, q_end), columns)) == whole.q);
    CHECK(matrix(xt::view(all, xt::range(q_end, k_end), columns)) == whole.k);
    CHECK(matrix(xt::view(all, xt::range(k_end, v_end), columns)) == whole.v);
    CHECK(all(0, 0) == 0.0);
}

TEST_CASE("mla_absorb: takes views, transposed views, adaptors, lazy arithmetic and readers") {
    const layer_tensors w = larql::testing::random_layer(published, 10);
    const auto want = absorb(factors_of<double>(w), published);

    auto f = factors_of<double>(w);
    const matrix transposed = xt::transpose(w.kv_b);
    const auto kv_b_view = xt::transpose(transposed);
    f.kv_b = kv_b_view;
    std::vector<double> memory(w.q_b.begin(), w.q_b.end());
    const auto adapted = xt::adapt(memory, std::vector<std::size_t>{w.q_b.shape(0), w.q_b.shape(1)});
    f.q_b = adapted;
    const auto lazy = w.q_a * 2.0 - w.q_a;
    f.q_a = lazy;
    f.kv_a = larql::matrix_input<double>(w.kv_a.shape(0), w.kv_a.shape(1),
                                         [&](std::size_t b, std::size_t e, double* out, std::size_t stride) {
                                             for (std::size_t r = b; r < e; ++r, out += stride)
                                                 for (std::size_t c = 0; c < w.kv_a.shape(1); ++c)
                                                     out[c] = w.kv_a(r, c);
                                         });
    const auto got = absorb(f, published);
    CHECK(relative_error(got.q, want.q) < double_bound);
    CHECK(relative_error(got.k, want.k) < double_bound);
    CHECK(relative_error(got.v, want.v) < double_bound);
    CHECK(got.kv_a == want.kv_a);
}

TEST_CASE("mla_absorb: the latent form projects as the plain reference does") {
    for (const std::size_t q_rank : {std::size_t{24}, std::size_t{0}})
        for (const rope_pairing pairing : {rope_pairing::half_split, rope_pairing::interleaved}) {
            mla_geometry g = published;
            g.q_lora_rank = q_rank;
            const layer_tensors w = larql::testing::random_layer(g, 11);
            const latent_mla<double> layer = absorb_latent(factors_of<double>(w), g, {.pairing = pairing});
            random_source random(78);
            const matrix x = larql::testing::random_matrix(random, 2, g.hidden_size);
            const auto want = larql::testing::reference_projections(x, w, g, eps);

            matrix q;
            if (q_rank == 0) {
                q = larql::testing::project(x, layer.q);
            } else {
                matrix a = larql::testing::project(x, layer.q_a, layer.q_a_bias);
                const vector s = larql::testing::rms_factors(a, q_rank, eps);
                for (std::size_t t = 0; t < 2; ++t)
                    for (std::size_t i = 0; i < q_rank; ++i) a(t, i) *= s(t);
                q = larql::testing::project(a, layer.q_b);
            }
            const matrix kv = larql::testing::project(x, layer.kv_a, layer.kv_a_bias);
            const vector s = larql::testing::rms_factors(kv, g.kv_lora_rank, eps);
            double worst = 0.0;
            for (std::size_t t = 0; t < 2; ++t)
                for (std::size_t h = 0; h < g.num_heads; ++h) {
                    // Scores must agree with those of the expanded keys, and outputs with the expanded values.
                    double score = 0.0, expected = 0.0;
                    for (std::size_t i = 0; i < g.qk_head_dim(); ++i) {
                        expected += want.q(1, h, i) * want.k(t, h, i);
                        const std::size_t stored = stored_element(g, layer.order, layer.pairing, i);
                        CHECK(q(t, h * g.qk_head_dim() + i) == doctest::Approx(want.q(t, h, stored)).epsilon(1e-9));
                    }
                    for (std::size_t r = 0; r < g.kv_lora_rank; ++r) {
                        double folded = 0.0;
                        for (std::size_t i = 0; i < g.qk_nope_head_dim; ++i)
                            folded += layer.k_b(h, r, i) * q(1, h * g.qk_head_dim() + g.qk_rope_head_dim + i);
                        score += folded * s(t) * kv(t, r);
                    }
                    for (std::size_t i = 0; i < g.qk_rope_head_dim; ++i)
                        score += q(1, h * g.qk_head_dim() + i) * kv(t, g.kv_lora_rank + i);
                    worst = std::max(worst, std::abs(score - expected) / std::abs(expected));
                    for (std::size_t i = 0; i < g.v_head_dim; ++i) {
                        double value = 0.0;
                        for (std::size_t r = 0; r < g.kv_lora_rank; ++r) value += layer.v_b(h, i, r) * s(t) * kv(t, r);
                        CHECK(value == doctest::Approx(want.v(t, h, i)).epsilon(1e-9));
                    }
                }
            CHECK(worst < 1e-10);
        }
}

TEST_CASE("mla_absorb: kv_b splits into k_b and v_b and comes back bit for bit") {
    const layer_tensors w = larql::testing::random_layer(published, 12);
    const auto parts = larql::split_kv_b<double>(w.kv_b, published);
    CHECK(parts.k_b(1, 4, 2) == w.kv_b(16 + 2, 4));      // head 1 starts at row 16; transposed
    CHECK(parts.v_b(2, 3, 5) == w.kv_b(32 + 6 + 3, 5));  // value rows follow the key rows
    const matrix k_rows = xt::reshape_view(parts.k_b, std::vector<std::size_t>{3 * 20, 6});
    const matrix v_rows = xt::reshape_view(parts.v_b, std::vector<std::size_t>{3 * 10, 20});
    const auto merged = larql::merge_kv_b<double>(k_rows, v_rows, published);
    CHECK(merged.to_tensor() == w.kv_b);
    auto row = matrix::from_shape({1, 20});
    merged.read_rows(33, 34, row.data(), 20);
    for (std::size_t c = 0; c < 20; ++c) CHECK(row(0, c) == w.kv_b(33, c));
}

TEST_CASE("mla_absorb: names the factor that does not fit, with both shapes") {
    const layer_tensors w = larql::testing::random_layer(published, 13);
    auto f = factors_of<double>(w);
    f.kv_b = w.kv_a;
    try {
        absorb(f, published);
        FAIL("accepted a kv_b of the wrong shape");
    } catch (const larql::error& e) {
        CHECK(e.code() == larql::errc::shape_mismatch);
        CHECK(std::string(e.what()) == "kv_b: expected [48, 20], got [28, 40]");
    }
    f = factors_of<double>(w);
    f.q_a = {};
    CHECK_THROWS_WITH_AS(absorb(f, published), "q_a: required and not given", larql::error);
    f = factors_of<double>(w);
    f.kv_a_norm = w.q_a_norm;
    CHECK_THROWS_WITH_AS(absorb(f, published), "kv_a_norm: expected 20 elements, got 24", larql::error);
    f = factors_of<double>(w);
    matrix narrow = xt::zeros<double>({1, 1});
    CHECK_THROWS_WITH_AS(larql::absorb_into(f, published, narrow, narrow, narrow),
                         "q_out: expected [42, 40], got [1, 1]", larql::error);
}

// The four-matrix call, with the names that its first implementation gave to its tests.

namespace {

struct four_matrices {
    mla_geometry geometry{.hidden_size = 16,
                          .num_heads = 4,
                          .num_kv_heads = 2,
                          .q_lora_rank = 8,
                          .kv_lora_rank = 8,
                          .qk_nope_head_dim = 4,
                          .qk_rope_head_dim = 2,
                          .v_head_dim = 4};
    layer_tensors w = larql::testing::random_layer(geometry, 1, false, false);
    tensor<float, 2> kv_a = w.kv_a, kv_b = w.kv_b, q_a = w.q_a, q_b = w.q_b;
    dense_mla<float> absorbed = absorb(kv_a, kv_b, q_a, q_b, geometry);
};

}  // namespace

TEST_CASE("absorbed_forward_matches_reference") {
    const four_matrices m;
    const mla_geometry& g = m.geometry;
    random_source random(99);
    const matrix x = larql::testing::random_matrix(random, 3, g.hidden_size);
    const auto want = larql::testing::reference_projections(x, m.w, g, eps);
    const auto heads = [&](const tensor<float, 2>& w, std::size_t count, std::size_t dim) {
        const tensor<float, 2> flat = larql::testing::project(x, matrix(w));
        return tensor<float, 3>(xt::reshape_view(flat, std::vector<std::size_t>{3, count, dim}));
    };
    const auto got =
        larql::gqa_attention_asym(heads(m.absorbed.q, 4, 6), heads(m.absorbed.k, 2, 6), heads(m.absorbed.v, 2, 4), {});
    const auto expected =
        larql::gqa_attention_asym(tensor<float, 3>(want.q), tensor<float, 3>(want.k), tensor<float, 3>(want.v), {});
    CHECK(relative_error(got, expected) < 1e-4);
}

TEST_CASE("absorbed_shapes") {
    const four_matrices m;
    CHECK(m.absorbed.q.shape() == tensor<float, 2>::shape_type{4 * 6, 16});
    CHECK(m.absorbed.k.shape() == tensor<float, 2>::shape_type{2 * 6, 16});
    CHECK(m.absorbed.v.shape() == tensor<float, 2>::shape_type{2 * 4, 16});
}

TEST_CASE("rope_k_is_broadcast_not_zero") {
    const four_matrices m;
    for (std::size_t i = 0; i < 2; ++i)
        for (std::size_t c = 0; c < 16; ++c) {
            CHECK(m.absorbed.k(i, c) == m.kv_a(8 + i, c));  // the stored row, in the stored order
            CHECK(m.absorbed.k(6 + i, c) == m.absorbed.k(i, c));
            CHECK(m.absorbed.k(i, c) != 0.0F);
        }
}
