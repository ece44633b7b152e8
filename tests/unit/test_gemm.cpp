// SPDX-License-Identifier: Apache-2.0
#include <larql/amx.hpp>
#include <larql/detail/gemm.hpp>
#include <larql/dtype.hpp>

#include <support/random.hpp>
#include <support/reference_gemm.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

using larql::detail::gemm_path;
using larql::detail::matrix_source;

namespace {

// The paths that this machine has for T.
template <class T>
std::vector<gemm_path> paths() {
    std::vector<gemm_path> out{gemm_path::blas};
    if constexpr (std::is_same_v<T, float>) {
        out.push_back(gemm_path::portable);
        const auto level = larql::detail::detected_simd_level();
        if (level >= larql::detail::simd_level::avx2) out.push_back(gemm_path::avx2);
        if (level >= larql::detail::simd_level::avx512) out.push_back(gemm_path::avx512);
        if (larql::enable_amx()) out.push_back(gemm_path::amx);
    }
    return out;
}

template <class T>
std::vector<T> random_values(std::size_t count, std::uint64_t seed) {
    std::vector<T> out(count);
    larql::testing::random_source random(seed);
    for (T& x : out) x = static_cast<T>(2.0 * random.uniform() - 1.0);
    return out;
}

// A matrix that only its reader can reach; counts how often each row is read.
template <class T>
struct hidden_rows {
    const std::vector<T>* values;
    std::size_t rows;
    std::size_t cols;
    std::vector<std::atomic<int>> reads;

    hidden_rows(const std::vector<T>& v, std::size_t r, std::size_t c) : values(&v), rows(r), cols(c), reads(r) {}
    void operator()(std::size_t begin, std::size_t end, T* out, std::size_t stride) {
        for (std::size_t r = begin; r < end; ++r, out += stride) {
            ++reads.at(r);
            for (std::size_t c = 0; c < cols; ++c) out[c] = values->at(r * cols + c);
        }
    }
    matrix_source<T> source() { return {rows, cols, *this}; }
};

// Where a product is written: rows out of order and apart, NaN before, and with canaries after each row.
template <class T>
struct scattered_rows {
    static constexpr std::size_t gap = 3;
    std::size_t rows;
    std::size_t cols;
    std::vector<T> memory;

    scattered_rows(std::size_t m, std::size_t n)
        : rows(m), cols(n), memory(m * (n + gap), std::numeric_limits<T>::quiet_NaN()) {
        for (std::size_t i = 0; i < m; ++i)
            for (std::size_t g = 0; g < gap; ++g) (*this)(i)[n + g] = T{42};
    }
    // The first rows ascend evenly, so that the others must be looked at to see that the spacing is uneven.
    T* operator()(std::size_t i) { return memory.data() + (i < 3 ? i : rows + 2 - i) * (cols + gap); }
    bool canaries_live() {
        for (std::size_t i = 0; i < rows; ++i)
            for (std::size_t g = 0; g < gap; ++g)
                if ((*this)(i)[cols + g] != T{42}) return false;
        return true;
    }
};

struct shape {
    std::size_t m;
    std::size_t n;
    std::size_t k;
};

template <class T>
struct factors {
    shape size;
    bool transposed;
    std::vector<T> a;
    std::vector<T> b;
    std::vector<T> scale;

    factors(shape s, bool t)
        : size(s),
          transposed(t),
          a(random_values<T>(s.m * s.k, 1)),
          b(random_values<T>(s.k * s.n, 2)),
          scale(random_values<T>(s.k, 3)) {}
    // AMX takes no other second factor: with one of full floats its path falls back to the vector kernels.
    [[nodiscard]] factors with_bf16_b() const {
        factors rounded = *this;
        for (T& x : rounded.b) x = static_cast<float>(larql::bf16(static_cast<float>(x)));
        return rounded;
    }
    [[nodiscard]] factors suited_to(gemm_path path) const { return path == gemm_path::amx ? with_bf16_b() : *this; }
    [[nodiscard]] std::size_t b_rows() const { return transposed ? size.n : size.k; }
    [[nodiscard]] std::size_t b_cols() const { return transposed ? size.k : size.n; }
};

template <class T, class Rows>
bool within_tolerance(const larql::testing::reference_product& expected, shape s, Rows& c) {
    for (std::size_t i = 0; i < s.m; ++i)
        for (std::size_t j = 0; j < s.n; ++j) {
            const double want = expected.value[i * s.n + j];
            const double allowed = larql::testing::gemm_tolerance<T>(s.k, expected.magnitude[i * s.n + j]);
            const double error = std::abs(static_cast<double>(c(i)[j]) - want);
            if (!(error <= allowed)) {
                MESSAGE("row ", i, " column ", j, ": ", c(i)[j], " instead of ", want, ", allowed ", allowed);
                return false;
            }
        }
    return true;
}

// One product on one path, scaled or not, rows hidden or in memory, against the reference.
template <class T>
void check_product(const factors<T>& f, gemm_path path, std::size_t threads, bool scaled, bool hidden,
                   std::size_t shared_bytes = larql::detail::shared_panel_bytes) {
    const auto [m, n, k] = f.size;
    CAPTURE(m);
    CAPTURE(n);
    CAPTURE(k);
    CAPTURE(larql::detail::to_string(path));
    CAPTURE(f.transposed);
    CAPTURE(hidden);
    const auto expected = larql::testing::reference_gemm(m, n, k, f.a, scaled ? &f.scale : nullptr, f.b, f.transposed);
    hidden_rows<T> a_hidden(f.a, m, k);
    hidden_rows<T> b_hidden(f.b, f.b_rows(), f.b_cols());
    const larql::detail::dense_rows<T> a_dense{f.a.data(), m, k, k};
    const larql::detail::dense_rows<T> b_dense{f.b.data(), f.b_rows(), f.b_cols(), f.b_cols()};
    const matrix_source<T> a = hidden ? a_hidden.source() : a_dense.source();
    const matrix_source<T> b = hidden ? b_hidden.source() : b_dense.source();
    scattered_rows<T> c(m, n);
    larql::thread_pool pool(threads);
    const auto role = f.transposed ? larql::detail::row_role::column : larql::detail::row_role::depth;
    larql::detail::multiply(larql::detail::product<T>{a, scaled ? f.scale.data() : nullptr, b, role, c, shared_bytes},
                            pool, path);
    CHECK(within_tolerance<T>(expected, f.size, c));
    CHECK(c.canaries_live());
}

template <class T>
void check_all_ways(shape s, std::size_t threads) {
    for (const bool transposed : {false, true}) {
        const factors<T> f(s, transposed);
        for (const gemm_path path : paths<T>())
            for (const bool hidden : {false, true}) check_product(f.suited_to(path), path, threads, !hidden, hidden);
    }
}

}  // namespace

TEST_CASE_TEMPLATE("gemm: equals the reference at and around every block edge", T, float, double) {
    for (const std::size_t m : {0U, 1U, 6U, 9U, 14U, 29U, 33U})
        for (const std::size_t n : {0U, 1U, 15U, 32U, 33U, 70U})
            for (const std::size_t k : {0U, 1U, 5U, 32U, 67U}) check_all_ways<T>({m, n, k}, 1);
}

TEST_CASE_TEMPLATE("gemm: equals the reference with several blocks in each direction and several threads", T, float,
                   double) {
    for (const std::size_t threads : {1U, 2U, 3U}) {
        check_all_ways<T>({200, 290, 30}, threads);
        check_all_ways<T>({17, 520, 515}, threads);
        check_all_ways<T>({430, 20, 260}, threads);
        check_all_ways<T>({2, 301, 700}, threads);
    }
}

TEST_CASE_TEMPLATE("gemm: equals the reference when the shared memory holds a part of the second factor", T, float,
                   double) {
    for (const bool transposed : {false, true}) {
        const factors<T> f({45, 110, 300}, transposed);
        for (const gemm_path path : paths<T>())
            for (const std::size_t bytes : {1U, 4096U, 60000U})
                check_product(f.suited_to(path), path, 2, true, true, bytes);
    }
}

// BLAS is not larql's to promise for.
TEST_CASE("gemm: the number of threads changes no bit of a product on larql's own paths") {
    for (const shape s : {shape{200, 290, 700}, {33, 520, 515}, {2, 301, 700}})
        for (const bool transposed : {false, true})
            for (const gemm_path path : paths<float>()) {
                if (path == gemm_path::blas) continue;
                CAPTURE(larql::detail::to_string(path));
                const factors<float> f = factors<float>(s, transposed).suited_to(path);
                const auto product_on = [&](larql::executor& threads) {
                    const larql::detail::dense_rows<float> a{f.a.data(), s.m, s.k, s.k};
                    const larql::detail::dense_rows<float> b{f.b.data(), f.b_rows(), f.b_cols(), f.b_cols()};
                    std::vector<float> c(s.m * s.n);
                    const auto c_row = [&](std::size_t i) { return c.data() + i * s.n; };
                    if (transposed)
                        larql::detail::gemm_nt<float>(a.source(), b.source(), c_row, threads, path);
                    else
                        larql::detail::gemm_nn<float>(a.source(), f.scale.data(), b.source(), c_row, threads, path);
                    return c;
                };
                larql::serial_executor serial;
                const std::vector<float> one = product_on(serial);
                for (const std::size_t threads : {2U, 3U, 4U, 7U}) {
                    larql::thread_pool pool(threads);
                    CHECK(product_on(pool) == one);
                }
            }
}

TEST_CASE("gemm: reads every row of the second factor once, and of the first at most once per part") {
    const shape s{60, 400, 300};
    for (const bool transposed : {false, true}) {
        for (const gemm_path path : paths<float>()) {
            const factors<float> f = factors<float>(s, transposed).suited_to(path);
            CAPTURE(larql::detail::to_string(path));
            hidden_rows<float> a(f.a, s.m, s.k);
            hidden_rows<float> b(f.b, f.b_rows(), f.b_cols());
            scattered_rows<float> c(s.m, s.n);
            larql::serial_executor serial;
            if (transposed)
                larql::detail::gemm_nt(a.source(), b.source(), c, serial, path);
            else
                larql::detail::gemm_nn(a.source(), nullptr, b.source(), c, serial, path);
            for (const auto& reads : a.reads) CHECK(reads == 1);
            for (const auto& reads : b.reads) CHECK(reads == 1);
        }
    }
}

TEST_CASE_TEMPLATE("gemm: NaN and infinity reach exactly the sums that they are part of", T, float, double) {
    const shape s{31, 45, 130};
    constexpr T infinity = std::numeric_limits<T>::infinity();
    constexpr T nan = std::numeric_limits<T>::quiet_NaN();
    for (const bool transposed : {false, true}) {
        factors<T> f(s, transposed);
        f.a[4 * s.k + 100] = nan;
        f.a[9 * s.k + 7] = infinity;
        f.a[20 * s.k + 128] = -infinity;
        f.a[20 * s.k + 129] = infinity;
        f.b[transposed ? 44 * s.k + 3 : 3 * s.n + 44] = infinity;
        f.b[transposed ? 11 * s.k + 64 : 64 * s.n + 11] = nan;
        const auto expected = larql::testing::reference_gemm<T>(s.m, s.n, s.k, f.a, nullptr, f.b, transposed);
        for (const gemm_path path : paths<T>()) {
            CAPTURE(larql::detail::to_string(path));
            const larql::detail::dense_rows<T> a{f.a.data(), s.m, s.k, s.k};
            const larql::detail::dense_rows<T> b{f.b.data(), f.b_rows(), f.b_cols(), f.b_cols()};
            scattered_rows<T> c(s.m, s.n);
            larql::serial_executor serial;
            if (transposed)
                larql::detail::gemm_nt(a.source(), b.source(), c, serial, path);
            else
                larql::detail::gemm_nn(a.source(), nullptr, b.source(), c, serial, path);
            std::size_t wrong = 0;
            for (std::size_t i = 0; i < s.m; ++i)
                for (std::size_t j = 0; j < s.n; ++j) {
                    const double want = expected.value[i * s.n + j];
                    const auto got = static_cast<double>(c(i)[j]);
                    const bool same = std::isnan(want)   ? std::isnan(got)
                                      : std::isinf(want) ? got == want
                                                         : std::abs(got - want) <= 1e-4;
                    wrong += same ? 0U : 1U;
                }
            CHECK(wrong == 0);
        }
    }
}

TEST_CASE("gemm: factors that disagree about the depth of the product are an error with both numbers") {
    const std::vector<float> values(60, 1.0F);
    const larql::detail::dense_rows<float> a{values.data(), 2, 5, 5};
    const larql::detail::dense_rows<float> b{values.data(), 6, 7, 7};
    larql::serial_executor serial;
    scattered_rows<float> c(2, 7);
    try {
        larql::detail::gemm_nn(a.source(), nullptr, b.source(), c, serial);
        FAIL("no exception");
    } catch (const larql::error& e) {
        CHECK(e.code() == larql::errc::shape_mismatch);
        CHECK(e.problem() == "matrix product: the first factor has 5 columns, the second has depth 6");
    }
    CHECK_THROWS_AS(larql::detail::gemm_nt(a.source(), b.source(), c, serial), larql::error);
}

TEST_CASE("gemm: what a reader throws reaches the caller") {
    const std::vector<float> values(400, 1.0F);
    const larql::detail::dense_rows<float> good{values.data(), 20, 20, 20};
    auto failing = [](std::size_t, std::size_t, float*, std::size_t) { throw std::runtime_error("unreadable"); };
    const matrix_source<float> bad{20, 20, failing};
    larql::thread_pool pool(2);
    scattered_rows<float> c(20, 20);
    for (const gemm_path path : paths<float>()) {
        CHECK_THROWS_WITH(larql::detail::gemm_nn(good.source(), nullptr, bad, c, pool, path), "unreadable");
        CHECK_THROWS_WITH(larql::detail::gemm_nn(bad, nullptr, good.source(), c, pool, path), "unreadable");
        CHECK_THROWS_WITH(larql::detail::gemm_nt(good.source(), bad, c, pool, path), "unreadable");
        CHECK_THROWS_WITH(larql::detail::gemm_nt(bad, good.source(), c, pool, path), "unreadable");
    }
}

namespace {

struct error_size {
    double worst = 0.0;
    double rms = 0.0;
};

// Errors of a product in units of the magnitude that was summed up.
error_size measure(const factors<float>& f, bool scaled, gemm_path path,
                   const larql::testing::reference_product& want) {
    const auto [m, n, k] = f.size;
    const larql::detail::dense_rows<float> a{f.a.data(), m, k, k};
    const larql::detail::dense_rows<float> b{f.b.data(), f.b_rows(), f.b_cols(), f.b_cols()};
    scattered_rows<float> c(m, n);
    larql::serial_executor serial;
    const auto role = f.transposed ? larql::detail::row_role::column : larql::detail::row_role::depth;
    larql::detail::multiply(
        larql::detail::product<float>{a.source(), scaled ? f.scale.data() : nullptr, b.source(), role, c}, serial,
        path);
    error_size out;
    for (std::size_t i = 0; i < m; ++i)
        for (std::size_t j = 0; j < n; ++j) {
            const std::size_t at = i * n + j;
            double error = std::abs(static_cast<double>(c(i)[j]) - want.value[at]) / want.magnitude[at];
            if (std::isnan(error)) error = 1.0;
            out.worst = std::max(out.worst, error);
            out.rms += error * error;
        }
    out.rms = std::sqrt(out.rms / static_cast<double>(m * n));
    return out;
}

// Factors whose numbers are drawn by `draw(random, step)`.
template <class Draw>
factors<float> drawn_factors(shape s, bool transposed, Draw draw) {
    factors<float> f(s, transposed);
    larql::testing::random_source random(11);
    for (std::size_t i = 0; i < f.a.size(); ++i) f.a[i] = static_cast<float>(draw(random, i % s.k));
    for (std::size_t i = 0; i < f.b.size(); ++i)
        f.b[i] = static_cast<float>(draw(random, transposed ? i % s.k : i / s.n));
    return f.with_bf16_b();
}

}  // namespace

TEST_CASE("gemm: products on AMX are as exact as products in float") {
    if (!larql::enable_amx()) {
        MESSAGE("skipped: this machine has no AMX");
        return;
    }
    using larql::testing::random_source;
    double previous = 0.0;
    const auto normal = [](random_source& r, std::size_t) { return r.normal(); };
    const auto positive = [](random_source& r, std::size_t) { return r.uniform(); };
    const auto wide = [](random_source& r, std::size_t) {
        return std::ldexp(r.normal(), static_cast<int>(r.below(25)) - 12);
    };
    const auto cancelling = [&](random_source& r, std::size_t k) {  // steps 2i and 2i + 1 nearly cancel in a sum
        previous = k % 2 == 1 ? -previous * (1.0 + 1e-6 * r.normal()) : 100.0 * r.normal();
        return previous;
    };
    const auto stored = [](random_source& r, std::size_t) {
        return static_cast<double>(static_cast<float>(larql::bf16(static_cast<float>(0.02 * r.normal()))));
    };
    const shape s{64, 96, 1024};
    for (const bool transposed : {false, true})
        for (const bool scaled : {false, true})
            for (const auto& f : {drawn_factors(s, transposed, normal), drawn_factors(s, transposed, positive),
                                  drawn_factors(s, transposed, wide), drawn_factors(s, transposed, cancelling),
                                  drawn_factors(s, transposed, stored)}) {
                const auto want =
                    larql::testing::reference_gemm(s.m, s.n, s.k, f.a, scaled ? &f.scale : nullptr, f.b, transposed);
                const error_size vector = measure(f, scaled, gemm_path::avx512, want);
                const error_size matrix = measure(f, scaled, gemm_path::amx, want);
                CAPTURE(transposed);
                CAPTURE(scaled);
                INFO("worst ", matrix.worst, " against ", vector.worst, ", rms ", matrix.rms, " against ", vector.rms);
                CHECK(matrix.rms <= vector.rms);
                CHECK(matrix.worst <= 1.5 * vector.worst);  // one outlier; alike where rounding of a * scale dominates
            }
}

TEST_CASE("gemm: a second factor that is not bfloat16 throughout is multiplied as without AMX") {
    const shape s{40, 100, 90};
    for (const bool transposed : {false, true}) {
        const factors<float> floats(s, transposed);
        factors<float> nearly = floats.with_bf16_b();
        nearly.b[nearly.b.size() - 3] = 1.0F + 0x1p-8F;  // 9 bits of significand
        for (const factors<float>* f : {&floats, &std::as_const(nearly)})
            for (const gemm_path path : paths<float>())
                for (const bool hidden : {false, true}) check_product(*f, path, 2, true, hidden);
    }
}

TEST_CASE("gemm: numbers that AMX would flush to zero or overflow on are multiplied in float") {
    const shape s{100, 70, 200};
    for (const bool transposed : {false, true})
        for (const gemm_path path : paths<float>()) {
            CAPTURE(larql::detail::to_string(path));
            factors<float> f = factors<float>(s, transposed).suited_to(path);
            for (std::size_t k = 0; k < s.k; ++k) {
                f.a[40 * s.k + k] *= 1e-30F;
                f.a[41 * s.k + k] *= 1e-43F;  // denormal
                f.a[99 * s.k + k] *= 1e37F;
            }
            check_product(f, path, 2, false, false);
            // Denormal in float and in bfloat16.
            for (std::size_t k = 0; k < s.k; ++k)
                f.b[transposed ? 7 * s.k + k : k * s.n + 7] = (k % 3 == 0 ? 5.0F : -3.0F) * 0x1p-131F;
            check_product(f, path, 2, false, false);
        }
}
