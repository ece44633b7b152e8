// SPDX-License-Identifier: Apache-2.0
//
// Blocks of compressed attention from a spec and weights: the formula, and a cache that forgets most of what it saw.
#include <larql/attention_cost.hpp>
#include <larql/attention_layer.hpp>
#include <larql/detail/compressed/choice.hpp>
#include <support/failing_executor.hpp>
#include <support/files.hpp>
#include <support/reference_compressed.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using larql::attention_layer;
using larql::attention_spec;
using larql::errc;
using larql::tensor;
using larql::tensor_role;
using larql::testing::compressed_reference;
using larql::testing::compressed_tensors;
using larql::testing::failing_executor;
using larql::testing::matrix;
using larql::testing::random_compressed;
using larql::testing::relative_error;
using larql::testing::tiny_compressed_spec;
using larql::testing::weights_of;

constexpr std::size_t tokens = 23;

matrix hidden_of(const attention_spec& spec, std::size_t count = tokens, std::uint64_t seed = 4) {
    larql::testing::random_source random(seed);
    return larql::testing::random_matrix(random, count, spec.geometry.hidden_size);
}

matrix rows_of(const matrix& x, std::size_t begin, std::size_t end) {
    matrix part = matrix::from_shape({end - begin, x.shape(1)});
    std::copy_n(x.data() + begin * x.shape(1), part.size(), part.data());
    return part;
}

struct named_spec {
    const char* name;
    attention_spec spec;
};

std::vector<named_spec> specs() {
    const auto changed = [](attention_spec spec, auto&& change) {
        change(spec);
        return spec;
    };
    return {
        {"a window alone", tiny_compressed_spec()},
        {"entries", tiny_compressed_spec(4)},
        {"entries of one token", tiny_compressed_spec(1)},
        {"entries longer than the window", tiny_compressed_spec(7)},
        {"entries longer than the sequence", tiny_compressed_spec(40)},
        {"chosen entries", tiny_compressed_spec(3, 2)},
        {"one chosen entry", tiny_compressed_spec(2, 1)},
        {"chosen entries of one token", tiny_compressed_spec(1, 4)},
        {"more chosen entries than there are", tiny_compressed_spec(4, 100)},
        {"a window of one token", changed(tiny_compressed_spec(3, 2), [](auto& s) { s.sliding_window = 1; })},
        {"a window longer than the sequence", changed(tiny_compressed_spec(3), [](auto& s) { s.sliding_window = 99; })},
        {"no sinks", changed(tiny_compressed_spec(3), [](auto& s) { s.sinks = false; })},
        {"no norm of queries", changed(tiny_compressed_spec(3), [](auto& s) { s.q_norm = {}; })},
        {"one output group", changed(tiny_compressed_spec(), [](auto& s) { s.output_groups = 1; })},
    };
}

/// The outputs of chunks of these sizes, the last repeated, through a cache.
template <class Storage, class T>
std::vector<T> through_cache(const attention_layer<T>& layer, larql::kv_cache<Storage>& cache, const matrix& x,
                             const std::vector<std::size_t>& sizes, larql::executor* threads = nullptr) {
    std::vector<T> out;
    for (std::size_t t = 0, i = 0; t < x.shape(0); ++i) {
        const std::size_t count = std::min(sizes[std::min(i, sizes.size() - 1)], x.shape(0) - t);
        const auto r = layer.forward(rows_of(x, t, t + count), cache, threads);
        out.insert(out.end(), r.out.begin(), r.out.end());
        t += count;
    }
    return out;
}

}  // namespace

TEST_CASE("compressed attention: computes its formula, in double and in float, with threads and without") {
    larql::thread_pool pool(3);
    for (const auto& [name, spec] : specs()) {
        CAPTURE(name);
        const compressed_tensors w = random_compressed(spec, 11);
        const matrix x = hidden_of(spec);
        const auto want = compressed_reference(spec, w).forward(x);
        const attention_layer<double> exact(spec, weights_of<double>(w));
        const attention_layer<float> layer(spec, weights_of<float>(w));
        CHECK(relative_error(exact.forward(x).context, want.context) < 1e-10);
        CHECK(relative_error(exact.forward(x, &pool).out, want.out) < 1e-10);
        CHECK(relative_error(layer.forward(x).out, want.out) < 1e-5);
        CHECK(relative_error(layer.forward(x, &pool).out, want.out) < 1e-5);
        larql::serial_executor alone;
        CHECK(layer.forward(x, &pool).context == layer.forward(x, &alone).context);  // to the bit
    }
}

TEST_CASE("compressed attention: chunks of any length through a cache give what one pass gives") {
    const std::vector<std::vector<std::size_t>> cuts{{1}, {tokens}, {10, 1}, {1, 5, 2, 7}, {3}, {4}, {13, 6}};
    for (const auto& [name, spec] : specs()) {
        CAPTURE(name);
        const compressed_tensors w = random_compressed(spec, 12);
        const matrix x = hidden_of(spec);
        const attention_layer<float> layer(spec, weights_of<float>(w));
        const attention_layer<double> exact(spec, weights_of<double>(w));
        const auto whole = layer.forward(x);
        for (const std::size_t rollback : {std::size_t{0}, std::size_t{16}})
            for (const auto& sizes : cuts) {
                CAPTURE(sizes.front());
                auto cache = layer.make_cache(tokens, rollback);
                CHECK(relative_error(through_cache(layer, cache, x, sizes), whole.out) < 1e-5);
                CHECK(cache.size() == tokens);
                auto single = exact.make_cache(tokens, rollback);
                CHECK(relative_error(through_cache(exact, single, x, sizes), whole.out) < 1e-5);
                if (spec.compression.index_heads != 0) continue;  // rounding may change a choice
                auto half = layer.make_cache<larql::f16>(tokens, rollback);
                CHECK(relative_error(through_cache(layer, half, x, sizes), whole.out) < 1e-2);
                auto brain = layer.make_cache<larql::bf16>(tokens, rollback);
                CHECK(relative_error(through_cache(layer, brain, x, sizes), whole.out) < 5e-2);
            }
    }
}

TEST_CASE("compressed attention: a cache's bytes are those that its shape states") {
    const auto bytes = [](const attention_spec& spec, std::size_t capacity, std::size_t rollback) {
        const compressed_tensors w = random_compressed(spec, 1);
        const attention_layer<float> layer(spec, weights_of<float>(w));
        const std::size_t single = layer.make_cache(capacity, rollback).size_bytes();
        const std::size_t half = layer.make_cache<larql::bf16>(capacity, rollback).size_bytes();
        CHECK(single == larql::cache_bytes(spec, larql::attention_form::factored, capacity, 4, rollback));
        CHECK(half == larql::cache_bytes(spec, larql::attention_form::factored, capacity, 2, rollback));
        return std::pair(single, half);
    };
    using pair = std::pair<std::size_t, std::size_t>;
    // Four keys of 16 elements for a window of 5.
    CHECK(bytes(tiny_compressed_spec(), 100, 0) == pair{4 * 16 * 4, 4 * 16 * 2});
    CHECK(bytes(tiny_compressed_spec(), 1000000, 0) == pair{4 * 16 * 4, 4 * 16 * 2});
    CHECK(bytes(tiny_compressed_spec(), 100, 3) == pair{7 * 16 * 4, 7 * 16 * 2});
    CHECK(bytes(tiny_compressed_spec(), 2, 0) == pair{2 * 16 * 4, 2 * 16 * 2});
    // Six open rows of 16 numbers and 16 gates in float, and 14 entries for 100 tokens.
    CHECK(bytes(tiny_compressed_spec(7), 100, 0) ==
          pair{4 * 16 * 4 + 6 * 32 * 4 + 14 * 16 * 4, 4 * 16 * 2 + 6 * 32 * 4 + 14 * 16 * 2});
    // Seven rows of twice the width where entries of 4 overlap; the indexer has as many, of 12 elements.
    CHECK(bytes(tiny_compressed_spec(4, 2), 100, 0) == pair{4 * 16 * 4 + 7 * (64 + 48) * 4 + 25 * (16 + 12) * 4,
                                                            4 * 16 * 2 + 7 * (64 + 48) * 4 + 25 * (16 + 12) * 2});
    // What a longer sequence adds is entries alone: at DeepSeek-V4-Flash's sizes 320 and 8 bytes a token in bf16.
    const larql::compressed_cache_shape sparse{
        .capacity = 1 << 20, .head_dim = 512, .window = 128, .ratio = 4, .overlapping = true, .index_head_dim = 128};
    const larql::compressed_cache_shape heavy{.capacity = 1 << 20, .head_dim = 512, .window = 128, .ratio = 128};
    CHECK(sparse.bytes(8192, 2) - sparse.bytes(4096, 2) == 4096 * 320);
    CHECK(heavy.bytes(8192, 2) - heavy.bytes(4096, 2) == 4096 * 8);
    CHECK(heavy.bytes(0, 2) == 127 * 512 * 2 + 127 * 1024 * 4);
    CHECK(larql::kv_cache<larql::bf16>::compressed(heavy).bytes_per_token() == 8);
    CHECK(larql::kv_cache<larql::bf16>::compressed(sparse).bytes_per_token() == 320);
    CHECK(larql::cost_of(tiny_compressed_spec(4, 2), larql::attention_form::factored).cached_per_token == 7);
}

TEST_CASE("compressed attention: a rejected draft leaves no trace, as far back as the cache reaches") {
    for (const auto& [name, spec] : specs()) {
        CAPTURE(name);
        const compressed_tensors w = random_compressed(spec, 13);
        const attention_layer<float> layer(spec, weights_of<float>(w));
        const matrix x = hidden_of(spec), draft = hidden_of(spec, 6, 99);
        const auto whole = layer.forward(x);
        for (std::size_t size = 0; size + 6 <= tokens; size += 2) {
            CAPTURE(size);
            auto cache = layer.make_cache(tokens, 6);
            if (size != 0) (void)layer.forward(rows_of(x, 0, size), cache);
            (void)layer.forward(draft, cache);
            cache.truncate(size + 3);  // a part of it, and then the rest
            cache.truncate(size);
            CHECK(cache.size() == size);
            const auto rest = layer.forward(rows_of(x, size, tokens), cache);
            CHECK(relative_error(rest.out, rows_of(matrix(whole.out), size, tokens)) < 1e-5);
            cache.clear();
            CHECK(cache.empty());
            CHECK(relative_error(layer.forward(x, cache).out, whole.out) < 1e-5);
        }
    }
    const attention_spec spec = tiny_compressed_spec(3);
    const compressed_tensors w = random_compressed(spec, 13);
    const attention_layer<float> layer(spec, weights_of<float>(w));
    auto cache = layer.make_cache(tokens, 2);
    (void)layer.forward(hidden_of(spec), cache);
    LARQL_CHECK_ERROR((cache.truncate(tokens - 3), 0), errc::limit_exceeded, "the cache can take back 2 tokens");
    LARQL_CHECK_ERROR((cache.truncate(tokens + 1), 0), errc::limit_exceeded, "holds 23");
    CHECK(cache.size() == tokens);
    cache.truncate(tokens - 2);
    LARQL_CHECK_ERROR((cache.truncate(tokens - 3), 0), errc::limit_exceeded, "can take back");
    cache.truncate(0);
    CHECK(cache.size() == 0);
}

TEST_CASE("compressed attention: what a task throws leaves the cache as it was") {
    for (const auto& [name, spec] : specs()) {
        CAPTURE(name);
        const compressed_tensors w = random_compressed(spec, 14);
        const attention_layer<float> layer(spec, weights_of<float>(w));
        const matrix x = hidden_of(spec);
        const auto whole = layer.forward(x);
        auto cache = layer.make_cache(tokens, 0);
        (void)layer.forward(rows_of(x, 0, 9), cache);
        std::size_t failures = 0;
        for (bool failed = true; failed; failures += failed ? 1 : 0) {
            failing_executor threads(failures);
            try {
                const auto r = layer.forward(rows_of(x, 9, tokens), cache, &threads);
                failed = false;
                CHECK(relative_error(r.out, rows_of(matrix(whole.out), 9, tokens)) < 1e-5);
            } catch (const std::runtime_error&) {
                CHECK(cache.size() == 9);
            }
        }
        CHECK(failures > 4);
    }
}

TEST_CASE("compressed attention: of equal scores the earlier entry is chosen") {
    const attention_spec spec = tiny_compressed_spec(2, 3);
    compressed_tensors w = random_compressed(spec, 15);
    w.matrices[tensor_role::indexer_weights].fill(0.0);
    const matrix x = hidden_of(spec);
    const auto want = compressed_reference(spec, w).forward(x);
    CHECK(relative_error(attention_layer<double>(spec, weights_of<double>(w)).forward(x).out, want.out) < 1e-10);
    std::vector<double> scores{0.0, 2.0, 0.0, std::numeric_limits<double>::quiet_NaN(), 2.0, -1.0};
    using list = std::vector<std::uint32_t>;
    CHECK(larql::detail::highest(scores, 6, 1) == list{3});
    CHECK(larql::detail::highest(scores, 6, 2) == list{1, 3});
    CHECK(larql::detail::highest(scores, 6, 4) == list{0, 1, 3, 4});
}

TEST_CASE("compressed attention: refuses caches of other layers, and rows of tokens that it does not keep") {
    const attention_spec spec = tiny_compressed_spec(3);
    const compressed_tensors w = random_compressed(spec, 16);
    const attention_layer<float> layer(spec, weights_of<float>(w));
    const matrix x = hidden_of(spec);
    auto cache = layer.make_cache(tokens - 1);
    LARQL_CHECK_ERROR(layer.forward(x, cache), errc::limit_exceeded, "23 more do not fit in its capacity of 22");
    CHECK(cache.empty());
    CHECK_FALSE(cache.is_latent());
    LARQL_CHECK_ERROR(cache.keys().shape(0), errc::shape_mismatch, "is compressed");
    LARQL_CHECK_ERROR(cache.values().shape(0), errc::shape_mismatch, "is compressed");
    const tensor<float, 3> k = xt::zeros<float>({1, 1, 16});
    LARQL_CHECK_ERROR((cache.append(k, k), 0), errc::shape_mismatch, "is compressed");
    larql::kv_cache<float> plain({tokens, 1, 16, 16});
    LARQL_CHECK_ERROR(layer.forward(x, plain), errc::shape_mismatch, "the layer's attention is compressed");
    const attention_spec other = tiny_compressed_spec(4);
    const compressed_tensors v = random_compressed(other, 16);
    auto wrong = attention_layer<float>(other, weights_of<float>(v)).make_cache(tokens);
    LARQL_CHECK_ERROR(layer.forward(x, wrong), errc::shape_mismatch, "are not this layer's");
    LARQL_CHECK_ERROR(layer.forward(matrix::from_shape({1, 5})), errc::shape_mismatch,
                      "expected hidden states of width");
    CHECK(layer.forward(matrix::from_shape({0, 22})).out.shape(0) == 0);
}

TEST_CASE("compressed attention: a spec that says something else is refused") {
    const auto problem = [](auto&& change) {
        attention_spec spec = tiny_compressed_spec(3, 2);
        const compressed_tensors w = random_compressed(spec, 17);
        change(spec);
        return larql::testing::error_of([&] { return attention_layer<float>(spec, weights_of<float>(w)); });
    };
    LARQL_CHECK_ERROR_TEXT(problem([](auto& s) { s.sliding_window = 0; }), errc::bad_value, "wants a window");
    LARQL_CHECK_ERROR_TEXT(problem([](auto& s) { s.softcap = 2.0; }), errc::bad_value, "no softcap");
    LARQL_CHECK_ERROR_TEXT(problem([](auto& s) { s.geometry.num_kv_heads = 2; }), errc::bad_value,
                           "one key/value head");
    LARQL_CHECK_ERROR_TEXT(problem([](auto& s) { s.geometry.order = larql::head_order::rope_nope; }), errc::bad_value,
                           "last elements rotate");
    LARQL_CHECK_ERROR_TEXT(problem([](auto& s) { s.compression.norm = {}; }), errc::bad_value, "an RMSNorm of entries");
    LARQL_CHECK_ERROR_TEXT(problem([](auto& s) { s.compression.index_top_k = 0; }), errc::bad_value, "an indexer");
    LARQL_CHECK_ERROR_TEXT(problem([](auto& s) { s.compression.index_head_dim = 4; }), errc::bad_value, "an indexer");
    LARQL_CHECK_ERROR_TEXT(problem([](auto& s) { s.output_groups = 5; }), errc::bad_value, "a divisor of");
    LARQL_CHECK_ERROR_TEXT(problem([](auto& s) { s.form = larql::attention_form::latent; }), errc::bad_value,
                           "the factored form");
    LARQL_CHECK_ERROR_TEXT(problem([](auto& s) { s.kind = larql::attention_kind::gqa; }), errc::bad_value,
                           "belongs to compressed attention");
    LARQL_CHECK_ERROR_TEXT(problem([](auto& s) { s.compression.overlapping = false; }), errc::shape_mismatch,
                           "compressor_kv");
}
