// SPDX-License-Identifier: Apache-2.0
#include <larql/gqa_attention.hpp>
#include <larql/kv_cache.hpp>

#include <support/random.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>

namespace {

using larql::errc;
using larql::kv_cache;
using larql::tensor;

static_assert(!std::is_copy_constructible_v<kv_cache<float>> && !std::is_copy_assignable_v<kv_cache<float>>);
static_assert(std::is_nothrow_move_constructible_v<kv_cache<float>> &&
              std::is_nothrow_move_assignable_v<kv_cache<float>>);

tensor<float, 3> random_tensor(larql::testing::random_source& random, std::size_t a, std::size_t b, std::size_t c) {
    tensor<float, 3> out({a, b, c});
    random.fill_normal(out);
    return out;
}

template <class F>
errc code_of(F&& f, std::string* text = nullptr) {
    try {
        f();
    } catch (const larql::error& e) {
        if (text != nullptr) *text = e.what();
        return e.code();
    }
    FAIL("no error");
    return errc::io;
}

template <class A, class B>
bool same(const A& a, const B& b) {
    if (!std::equal(a.shape().begin(), a.shape().end(), b.shape().begin(), b.shape().end())) return false;
    for (std::size_t t = 0; t < a.shape()[0]; ++t)
        for (std::size_t h = 0; h < a.shape()[1]; ++h)
            for (std::size_t d = 0; d < a.shape()[2]; ++d)
                if (!(static_cast<float>(a(t, h, d)) == static_cast<float>(b(t, h, d)))) return false;
    return true;
}

/// Rows [begin, end) of a tensor.
tensor<float, 3> rows(const tensor<float, 3>& from, std::size_t begin, std::size_t end) {
    tensor<float, 3> out({end - begin, from.shape()[1], from.shape()[2]});
    std::copy_n(from.data() + begin * from.shape()[1] * from.shape()[2], out.size(), out.data());
    return out;
}

}  // namespace

TEST_CASE_TEMPLATE("kv_cache: gives back what was appended, rounded once to the storage type", T, float, larql::bf16,
                   larql::f16, larql::f8_e4m3) {
    larql::testing::random_source random(1);
    const auto k = random_tensor(random, 5, 2, 6);
    const auto v = random_tensor(random, 5, 2, 3);
    kv_cache<T> cache({.capacity = 8, .kv_heads = 2, .key_size = 6, .value_size = 3});
    CHECK(cache.empty());
    CHECK(cache.capacity() == 8);
    CHECK(cache.bytes_per_token() == 18 * sizeof(T));
    cache.append(rows(k, 0, 2), rows(v, 0, 2));
    cache.append(rows(k, 2, 5) * 1.0F, rows(v, 2, 5) + 0.0F);  // lazy expressions
    CHECK(cache.size() == 5);
    tensor<T, 3> want_k = xt::cast<T>(k);
    tensor<T, 3> want_v = xt::cast<T>(v);
    CHECK(same(cache.keys(), want_k));
    CHECK(same(cache.values(), want_v));
}

TEST_CASE("kv_cache: takes rows of two dimensions and transposed storage") {
    larql::testing::random_source random(2);
    const auto k = random_tensor(random, 3, 2, 4);
    const auto v = random_tensor(random, 3, 2, 4);
    kv_cache<float> cache({.capacity = 6, .kv_heads = 2, .key_size = 4, .value_size = 4});
    const tensor<float, 2> flat_k(std::array<std::size_t, 2>{3, 8});
    tensor<float, 2> flat = flat_k;
    std::copy(k.begin(), k.end(), flat.begin());
    xt::xtensor<float, 3, xt::layout_type::column_major> columns = v;
    cache.append(flat, columns);
    CHECK(same(cache.keys(), k));
    CHECK(same(cache.values(), v));
}

TEST_CASE("kv_cache: a latent cache holds one row per token, whose prefix is the value") {
    larql::testing::random_source random(3);
    const auto row = random_tensor(random, 7, 1, 10);
    auto cache = kv_cache<larql::f16>::latent(9, 8, 2);
    CHECK(cache.is_latent());
    CHECK(cache.bytes_per_token() == 20);
    cache.append(row);
    CHECK(cache.keys().shape()[2] == 10);
    CHECK(cache.values().shape()[2] == 8);
    CHECK(cache.keys().data() == cache.values().data());
    CHECK(static_cast<float>(cache.values()(6, 0, 7)) == static_cast<float>(larql::f16(row(6, 0, 7))));
    CHECK(code_of([&] { cache.append(row, row); }) == errc::shape_mismatch);
    kv_cache<float> apart({.capacity = 1, .kv_heads = 1, .key_size = 10, .value_size = 8});
    CHECK(code_of([&] { apart.append(row); }) == errc::shape_mismatch);
}

TEST_CASE("kv_cache: overflow is refused with both numbers and changes nothing") {
    larql::testing::random_source random(4);
    kv_cache<float> cache({.capacity = 4, .kv_heads = 1, .key_size = 2, .value_size = 2});
    const auto three = random_tensor(random, 3, 1, 2);
    cache.append(three, three);
    std::string text;
    CHECK(code_of([&] { cache.append(three, three); }, &text) == errc::limit_exceeded);
    CHECK(text == "kv_cache: holds 3 tokens and 3 more do not fit in its capacity of 4");
    CHECK(cache.size() == 3);
    CHECK(same(cache.keys(), three));
    cache.append(rows(three, 0, 1), rows(three, 0, 1));
    CHECK(cache.size() == 4);
}

TEST_CASE("kv_cache: other shapes are refused and change nothing") {
    larql::testing::random_source random(5);
    kv_cache<float> cache({.capacity = 4, .kv_heads = 2, .key_size = 2, .value_size = 3});
    const auto good = random_tensor(random, 1, 2, 2);
    const auto value = random_tensor(random, 1, 2, 3);
    std::string text;
    CHECK(code_of([&] { cache.append(good, good); }, &text) == errc::shape_mismatch);
    CHECK(text == "v: head size 2, the cache has 3");
    CHECK(code_of([&] { cache.append(random_tensor(random, 1, 1, 2), value); }) == errc::shape_mismatch);
    CHECK(code_of([&] { cache.append(random_tensor(random, 2, 2, 2), value); }) == errc::shape_mismatch);
    CHECK(cache.empty());
}

TEST_CASE("kv_cache: truncate forgets the last tokens and clear forgets all") {
    larql::testing::random_source random(6);
    kv_cache<float> cache({.capacity = 4, .kv_heads = 1, .key_size = 2, .value_size = 2});
    const auto four = random_tensor(random, 4, 1, 2);
    cache.append(four, four);
    cache.truncate(2);
    CHECK(same(cache.keys(), rows(four, 0, 2)));
    std::string text;
    CHECK(code_of([&] { cache.truncate(3); }, &text) == errc::limit_exceeded);
    CHECK(text == "kv_cache: truncate to 3 tokens, holds 2");
    cache.append(rows(four, 2, 4), rows(four, 2, 4));
    CHECK(same(cache.values(), four));
    cache.clear();
    CHECK(cache.empty());
    CHECK(cache.keys().shape()[0] == 0);
}

TEST_CASE("kv_cache: the oldest tokens go, and those that stay keep their rows and positions") {
    larql::testing::random_source random(5);
    const auto k = random_tensor(random, 7, 2, 4), v = random_tensor(random, 7, 2, 3),
               i = random_tensor(random, 7, 1, 5);
    kv_cache<float> cache({.capacity = 7, .kv_heads = 2, .key_size = 4, .value_size = 3, .index_size = 5});
    cache.append_indexed(i, k, v);
    cache.drop_front(0);
    cache.drop_front(3);
    CHECK(cache.size() == 4);
    CHECK(cache.first_position() == 3);
    CHECK(cache.next_position() == 7);
    CHECK(cache.longest() == 7);
    CHECK(same(cache.keys(), rows(k, 3, 7)));
    CHECK(same(cache.values(), rows(v, 3, 7)));
    CHECK(same(cache.index_keys(), rows(i, 3, 7)));
    CHECK_THROWS_AS(cache.drop_front(5), larql::error);
    cache.append_indexed(rows(i, 0, 3), rows(k, 0, 3), rows(v, 0, 3));  // there is room again
    CHECK(same(cache.keys(), [&] {
        tensor<float, 3> want = rows(k, 0, 7);
        std::rotate(want.begin(), want.begin() + 3 * 8, want.end());
        return want;
    }()));
    cache.truncate(2);
    CHECK(cache.next_position() == 5);
    CHECK(cache.longest() == 10);
    auto moved = std::move(cache);
    CHECK(moved.first_position() == 3);
    moved.truncate(0);
    CHECK(moved.next_position() == 3);
    moved.clear();
    CHECK(moved.next_position() == 0);
    CHECK(moved.longest() == 0);
}

TEST_CASE("kv_cache: begins with another's tokens, at the same positions alone") {
    larql::testing::random_source random(6);
    const auto k = random_tensor(random, 5, 1, 4), v = random_tensor(random, 5, 1, 3);
    const larql::kv_cache_shape shape{.capacity = 6, .kv_heads = 1, .key_size = 4, .value_size = 3};
    kv_cache<larql::f16> a(shape), b(shape);
    a.append(k, v);
    b.append_from(a, 0, 2);
    b.append_from(a, 2, 5);
    CHECK(same(b.keys(), tensor<larql::f16, 3>(a.keys())));
    CHECK(same(b.values(), tensor<larql::f16, 3>(a.values())));
    const auto code = [&](auto&& call) {
        try {
            call();
        } catch (const larql::error& e) {
            return e.code();
        }
        return larql::errc::io;
    };
    CHECK(code([&] { b.append_from(a, 0, 1); }) == larql::errc::bad_value);  // position 0, and 5 is next
    b.clear();
    CHECK(code([&] { b.append_from(a, 1, 3); }) == larql::errc::bad_value);
    CHECK(code([&] { b.append_from(a, 0, 6); }) == larql::errc::limit_exceeded);
    CHECK(code([&] { b.append_from(a, 3, 2); }) == larql::errc::limit_exceeded);
    kv_cache<larql::f16> small({.capacity = 2, .kv_heads = 1, .key_size = 4, .value_size = 3});
    CHECK(code([&] { small.append_from(a, 0, 3); }) == larql::errc::limit_exceeded);
    auto latent = kv_cache<larql::f16>::latent(6, 3, 1);
    CHECK(code([&] { latent.append_from(a, 0, 1); }) == larql::errc::shape_mismatch);
    CHECK(b.empty());
    a.drop_front(4);
    b.append_from(a, 0, 0);
    CHECK(code([&] { b.append_from(a, 0, 1); }) == larql::errc::bad_value);
}

TEST_CASE("kv_cache: memory that is not used is not touched, and an impossible size is an error") {
    constexpr std::size_t many = std::size_t{1} << 20;
    // 1 GiB of address space; touching it would be noticed.
    kv_cache<float> cache({.capacity = many, .kv_heads = 1, .key_size = 128, .value_size = 128});
    CHECK(cache.capacity() == many);
    constexpr std::size_t huge = std::numeric_limits<std::size_t>::max() / 2;
    CHECK(code_of([&] { kv_cache<float>({.capacity = huge, .kv_heads = 8, .key_size = 64, .value_size = 64}); }) ==
          errc::limit_exceeded);
    CHECK(code_of([&] { (void)kv_cache<float>::latent(1, huge, huge + 2); }) == errc::limit_exceeded);
}

TEST_CASE("kv_cache: moving leaves an empty cache of no capacity") {
    larql::testing::random_source random(7);
    kv_cache<float> a({.capacity = 4, .kv_heads = 1, .key_size = 2, .value_size = 2});
    const auto two = random_tensor(random, 2, 1, 2);
    a.append(two, two);
    kv_cache<float> b = std::move(a);
    CHECK(b.size() == 2);
    CHECK(same(b.keys(), two));
    CHECK(a.size() == 0);      // NOLINT(bugprone-use-after-move): the state is promised
    CHECK(a.capacity() == 0);  // NOLINT(bugprone-use-after-move)
    a = std::move(b);
    CHECK(same(a.values(), two));
}

TEST_CASE_TEMPLATE("kv_cache: decoding token by token equals one pass over the whole", T, float, larql::bf16,
                   larql::f16, larql::f8_e4m3) {
    larql::testing::random_source random(8);
    const auto q = random_tensor(random, 40, 4, 32);
    const tensor<T, 3> k = xt::cast<T>(random_tensor(random, 40, 2, 32));
    const tensor<T, 3> v = xt::cast<T>(random_tensor(random, 40, 2, 16));
    const auto whole = larql::gqa_attention_asym(q, k, v);
    kv_cache<T> cache({.capacity = 40, .kv_heads = 2, .key_size = 32, .value_size = 16});
    double worst = 0;
    for (std::size_t t = 0; t < 40; ++t) {
        const tensor<float, 3> key = xt::cast<float>(k);
        const tensor<float, 3> value = xt::cast<float>(v);
        cache.append(rows(key, t, t + 1), rows(value, t, t + 1));
        const auto step = larql::gqa_attention_asym(rows(q, t, t + 1), cache.keys(), cache.values());
        for (std::size_t h = 0; h < 4; ++h)
            for (std::size_t c = 0; c < 16; ++c)
                worst =
                    std::max(worst, std::abs(static_cast<double>(step(0, h, c)) - static_cast<double>(whole(t, h, c))));
    }
    CHECK(worst < 64 * std::numeric_limits<float>::epsilon());
}
