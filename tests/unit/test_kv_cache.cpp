// SPDX-License-Identifier: Apache-2.0
#include <larql/gqa_attention.hpp>
#include <larql/kv_cache.hpp>
#include <support/random.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <fstream>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>

namespace {

using larql::kv_cache;
using larql::tensor;

tensor<float, 3> random_rows(std::uint64_t seed, std::size_t tokens, std::size_t heads, std::size_t dim) {
    larql::testing::random_source random(seed);
    auto x = tensor<float, 3>::from_shape({tokens, heads, dim});
    random.fill_normal(x);
    return x;
}

}  // namespace

static_assert(!std::is_copy_constructible_v<kv_cache<float>>);
static_assert(std::is_nothrow_move_constructible_v<kv_cache<float>>);

TEST_CASE("kv_cache: holds what was appended, in order and at the same address") {
    const auto k = random_rows(1, 5, 2, 6), v = random_rows(2, 5, 2, 3);
    kv_cache<float> cache(5, 2, 6, 3);
    CHECK(cache.keys().shape()[0] == 0);
    const float* first = cache.keys().data();
    for (std::size_t t = 0; t < 5; ++t) {
        auto kt = tensor<float, 3>::from_shape({1, 2, 6}), vt = tensor<float, 3>::from_shape({1, 2, 3});
        std::copy_n(k.data() + t * 12, 12, kt.data());
        std::copy_n(v.data() + t * 6, 6, vt.data());
        cache.append(kt, vt);
    }
    CHECK(cache.size() == 5);
    CHECK(cache.size_bytes() == 5 * 2 * 9 * sizeof(float));
    CHECK(cache.keys().data() == first);
    CHECK(tensor<float, 3>(cache.keys()) == k);
    CHECK(tensor<float, 3>(cache.values()) == v);
}

TEST_CASE("kv_cache: in the latent layout the values are the first columns of the keys") {
    const auto k = random_rows(3, 4, 1, 10);
    auto cache = kv_cache<float>::latent(8, 7, 3);
    cache.append(k);
    CHECK(tensor<float, 3>(cache.keys()) == k);
    const tensor<float, 3> values = cache.values();
    CHECK(values.shape() == tensor<float, 3>::shape_type{4, 1, 7});
    for (std::size_t t = 0; t < 4; ++t)
        for (std::size_t i = 0; i < 7; ++i) CHECK(values(t, 0, i) == k(t, 0, i));
    CHECK(cache.size_bytes() == 4 * 10 * sizeof(float));
    CHECK_THROWS_AS(cache.append(k, k), larql::error);
}

TEST_CASE("kv_cache: converts to its storage, from lazy expressions too, and attention reads it") {
    const auto k = random_rows(4, 6, 2, 8), v = random_rows(5, 6, 2, 4), q = random_rows(6, 1, 4, 8);
    kv_cache<larql::f16> half(6, 2, 8, 4);
    half.append(k * 2.0F, v);
    CHECK(static_cast<float>(half.keys()(3, 1, 5)) == static_cast<float>(larql::f16(2.0F * k(3, 1, 5))));
    kv_cache<larql::bf16> brain(6, 2, 8, 4);
    brain.append(k, v);
    kv_cache<float> single(6, 2, 8, 4);
    single.append(k, v);
    const auto want = larql::gqa_attention_asym(q, k, v);
    CHECK(larql::gqa_attention_asym(q, single.keys(), single.values()) == want);
    const auto close = larql::gqa_attention_asym(q, brain.keys(), brain.values());
    for (std::size_t i = 0; i < want.size(); ++i)
        CHECK(close.data()[i] == doctest::Approx(want.data()[i]).epsilon(0.05));
}

TEST_CASE("kv_cache: refuses other shapes and more than fits, and then holds what it held") {
    kv_cache<float> cache(3, 2, 4, 4);
    cache.append(random_rows(7, 2, 2, 4), random_rows(8, 2, 2, 4));
    CHECK_THROWS_WITH_AS(cache.append(random_rows(9, 2, 2, 4), random_rows(9, 2, 2, 4)),
                         "kv_cache: expected at most 1 more tokens, got 2", larql::error);
    CHECK_THROWS_WITH_AS(cache.append(random_rows(9, 1, 2, 4), random_rows(9, 1, 2, 5)),
                         "values: expected [tokens, 2, 4], got [1, 2, 5]", larql::error);
    CHECK_THROWS_AS(cache.append(random_rows(9, 1, 2, 4), random_rows(9, 0, 2, 4)), larql::error);
    CHECK_THROWS_AS(cache.append(random_rows(9, 1, 2, 4)), larql::error);
    CHECK(cache.size() == 2);
    CHECK_THROWS_AS(cache.truncate(3), larql::error);
    cache.truncate(1);
    CHECK(cache.size() == 1);
    cache.clear();
    CHECK(cache.size() == 0);
    CHECK_THROWS_AS((kv_cache<float>(std::numeric_limits<std::size_t>::max(), 128, 192, 128)), larql::error);
    CHECK_THROWS_AS((kv_cache<float>::latent(1, std::numeric_limits<std::size_t>::max(), 2)), larql::error);
}

#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
TEST_CASE("kv_cache: a large capacity takes no memory until tokens arrive") {
    const auto resident_pages = [] {
        std::ifstream in("/proc/self/statm");
        std::size_t total = 0, resident = 0;
        in >> total >> resident;
        return resident;
    };
    const std::size_t before = resident_pages();
    kv_cache<larql::f16> cache(1'000'000, 8, 128, 128);  // 4 GB
    CHECK(resident_pages() - before < 1000);
    cache.append(random_rows(10, 1, 8, 128), random_rows(11, 1, 8, 128));
    CHECK(resident_pages() - before < 1000);
}
#endif
