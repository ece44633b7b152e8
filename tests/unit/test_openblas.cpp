// SPDX-License-Identifier: Apache-2.0
#include <larql/detail/blas.hpp>
#include <larql/openblas.hpp>

#include <support/random.hpp>
#include <support/reference_gemm.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

namespace {

// Whether a product through BLAS is what the definition says.
template <class T>
bool blas_is_right(bool b_transposed) {
    const std::size_t m = 70;
    const std::size_t n = 130;
    const std::size_t k = 300;
    std::vector<T> a(m * k);
    std::vector<T> b(k * n);
    std::vector<T> c(m * n);
    larql::testing::random_source random(5);
    random.fill_normal(a);
    random.fill_normal(b);
    larql::detail::blas_gemm<T>(m, n, k, {a.data(), k}, {b.data(), b_transposed ? k : n}, b_transposed, {c.data(), n},
                                false);
    const auto expected = larql::testing::reference_gemm<T>(m, n, k, a, nullptr, b, b_transposed);
    for (std::size_t i = 0; i < c.size(); ++i)
        if (!(std::abs(static_cast<double>(c[i]) - expected.value[i]) <=
              larql::testing::gemm_tolerance<T>(k, expected.magnitude[i])))
            return false;
    return true;
}

// Puts OpenBLAS in the state in which it is when it does not know the processor. False if it cannot be.
bool fall_back_to_oldest_kernels() {
    if (larql::detail::detected_simd_level() < larql::detail::simd_level::avx2) return false;
    if (larql::openblas_status().config.find("DYNAMIC_ARCH") == std::string::npos) return false;
    auto* const quit = larql::detail::find_loaded<void()>("gotoblas_dynamic_quit");
    auto* const init = larql::detail::find_loaded<void()>("gotoblas_dynamic_init");
    if (quit == nullptr || init == nullptr) return false;
    setenv("OPENBLAS_CORETYPE", "Prescott", 1);
    quit();
    init();
    unsetenv("OPENBLAS_CORETYPE");
    return larql::openblas_status().core == "Prescott";
}

}  // namespace

TEST_CASE("openblas: the status says what is loaded, and changes nothing") {
    const larql::openblas_report first = larql::openblas_status();
    const larql::openblas_report second = larql::openblas_status();
    CHECK(first.message == second.message);
    CHECK(first.message.find('\n') == std::string::npos);
    if (!first.present) {
        MESSAGE("the BLAS of this build is not OpenBLAS");
        CHECK(first.message == "no OpenBLAS is loaded");
        CHECK_FALSE(first.better_available);
        return;
    }
    CHECK(first.config.find("OpenBLAS") != std::string::npos);
    CHECK_FALSE(first.core.empty());
    CHECK(first.message.find(first.core) != std::string::npos);
    CHECK(first.better_available == (first.message.find("openblas_use_best_kernels") != std::string::npos));
}

TEST_CASE("openblas: after the repair the best kernels are in use, products are right, the environment is as before") {
    if (!fall_back_to_oldest_kernels()) {
        CHECK(larql::openblas_use_best_kernels() == larql::openblas_status().present);
        MESSAGE("skipped: no OpenBLAS that can change its kernels, or a processor without AVX2");
        return;
    }
    const larql::openblas_report before = larql::openblas_status();
    CHECK(before.core == "Prescott");
    CHECK(before.better_available);
    CHECK(before.message.find("call larql::openblas_use_best_kernels()") != std::string::npos);
    CHECK(blas_is_right<float>(false));

    for (const char* value : {static_cast<const char*>(nullptr), "Prescott"}) {
        if (value != nullptr) setenv("OPENBLAS_CORETYPE", value, 1);
        CHECK(larql::openblas_use_best_kernels());
        const larql::openblas_report after = larql::openblas_status();
        CHECK(after.core == after.best_core);
        CHECK(after.core == before.best_core);
        CHECK_FALSE(after.better_available);
        const char* kept = std::getenv("OPENBLAS_CORETYPE");
        CHECK((value != nullptr ? kept != nullptr && std::string(kept) == value : kept == nullptr));
        for (const bool transposed : {false, true}) {
            CHECK(blas_is_right<float>(transposed));
            CHECK(blas_is_right<double>(transposed));
        }
        if (value == nullptr) CHECK(fall_back_to_oldest_kernels());
    }
    unsetenv("OPENBLAS_CORETYPE");
}

TEST_CASE("openblas: a core's name says which vector instructions its kernels use") {
    using larql::detail::openblas_core_for;
    using larql::detail::openblas_core_level;
    using larql::detail::simd_level;
    CHECK(openblas_core_level("Prescott") == simd_level::portable);
    CHECK(openblas_core_level("Haswell") == simd_level::avx2);
    CHECK(openblas_core_level("SkylakeX") == simd_level::avx512);
    for (const simd_level level : {simd_level::avx2, simd_level::avx512})
        CHECK(openblas_core_level(openblas_core_for(level)) == level);
    CHECK(openblas_core_for(simd_level::portable).empty());
}

TEST_CASE("blas: a size that its integers cannot hold is an error with both numbers") {
    const std::size_t limit = static_cast<std::size_t>(std::numeric_limits<larql::detail::blas_int>::max());
    CHECK(larql::detail::to_blas_int(limit, "rows") == std::numeric_limits<larql::detail::blas_int>::max());
    try {
        static_cast<void>(larql::detail::to_blas_int(limit + 1, "rows"));
        FAIL("no exception");
    } catch (const larql::error& e) {
        CHECK(e.code() == larql::errc::limit_exceeded);
        CHECK(e.problem() == "rows of a matrix product: BLAS counts up to " + std::to_string(limit) + ", got " +
                                 std::to_string(limit + 1));
    }
}
