// SPDX-License-Identifier: Apache-2.0
//
// Matrix products over factors that are read by rows, so that a stored (also quantised) weight enters a product without
// ever existing as a whole float matrix.
#ifndef LARQL_DETAIL_GEMM_HPP
#define LARQL_DETAIL_GEMM_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/cpu.hpp>
#include <larql/detail/function_ref.hpp>
#include <larql/detail/gemm/amx_slot.hpp>
#include <larql/detail/gemm/blas.hpp>
#include <larql/detail/gemm/few_rows.hpp>
#include <larql/detail/gemm/packed.hpp>
#include <larql/detail/gemm/source.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>

namespace larql::detail {

/// How a product is computed. Double always goes through BLAS; few rows of float never do.
enum class gemm_path { blas, portable, avx2, avx512, amx };

inline std::string_view to_string(gemm_path path) noexcept {
    switch (path) {
        case gemm_path::blas: return "blas";
        case gemm_path::portable: return "portable";
        case gemm_path::avx2: return "avx2";
        case gemm_path::avx512: return "avx512";
        case gemm_path::amx: return "amx";
    }
    return "unknown";
}

/// The fastest path that this process may use. An x86 processor below AVX2 leaves the product to BLAS, which has code
/// for its 16 small registers; elsewhere the portable level is the processor's own vectors.
inline gemm_path best_gemm_path() noexcept {
    constexpr gemm_path below_avx2 = LARQL_X86_DISPATCH ? gemm_path::blas : gemm_path::portable;
    switch (active_simd_level()) {
        case simd_level::portable: return below_avx2;
        case simd_level::avx2: return gemm_path::avx2;
        case simd_level::avx512:
            return amx_slot().load(std::memory_order_acquire) != nullptr ? gemm_path::amx : gemm_path::avx512;
    }
    return below_avx2;
}

/// The level of the vector code of a path.
inline simd_level level_of(gemm_path path) noexcept {
    switch (path) {
        case gemm_path::blas:
        case gemm_path::portable: return simd_level::portable;
        case gemm_path::avx2: return simd_level::avx2;
        default: return simd_level::avx512;
    }
}

/// C = A B^T for a few rows of A.
inline void multiply_few(const product<float>& p, executor& threads, gemm_path path) {
    const std::size_t m = p.m(), k = p.k();
    const aligned_array<float> memory(p.a.data != nullptr && p.k_scale == nullptr ? 0 : m * k);
    row_view<float> a = view_rows(p.a, 0, m, memory.data());
    if (p.k_scale != nullptr) {
        for (std::size_t i = 0; i < m; ++i)
            for (std::size_t l = 0; l < k; ++l) memory.data()[i * k + l] = a.data[i * a.stride + l] * p.k_scale[l];
        a = {memory.data(), k};
    }
    float* c[few_rows_limit];
    for (std::size_t i = 0; i < m; ++i) c[i] = p.c_row(i);
    multiply_few_rows({.weight = p.b, .rows = p.n(), .tokens = m, .x = {a.data, a.stride}, .out = c}, level_of(path),
                      threads);
}

template <class T>
void multiply(const product<T>& p, executor& threads, gemm_path path) {
    const std::size_t b_depth = p.b_rows == row_role::depth ? p.b.rows : p.b.cols;
    if (p.k() != b_depth)
        fail(errc::shape_mismatch,
             concat({"matrix product: the first factor has ", p.k(), " columns, the second has depth ", b_depth}));
    if (p.m() == 0 || p.n() == 0) return;
    if (p.k() == 0) {
        for (std::size_t i = 0; i < p.m(); ++i) std::fill_n(p.c_row(i), p.n(), T{});
        return;
    }
    if constexpr (std::is_same_v<T, float>)
        if (p.b_rows == row_role::column && p.m() <= few_rows_limit) return multiply_few(p, threads, path);
    if constexpr (std::is_same_v<T, float>) {
        if (path != gemm_path::blas) {
            if (path == gemm_path::amx && p.b_rows == row_role::depth)
                return amx_slot().load(std::memory_order_acquire)(p, threads);
            return packed_product(p, level_of(path), threads).run();
        }
    }
    static_cast<void>(path);
    blas_product<T>(p, threads).run();
}

/// C[i,:] = sum over k of A[i,k] * k_scale[k] * B[k,:].
///
/// A row of B is read once, a row of A a few times (see for_each_stretch). Besides the result it needs about 36 MiB.
///
/// @param a        [M, K]
/// @param k_scale  [K], or null for ones
/// @param b        [K, N]
/// @param c_row    where row i of the product is written: N contiguous values, rows apart from each other; what was
///                 there is not read. Called from several threads
/// @param path     for tests; the processor must have it, and the program must have enabled AMX
/// @throws error shape_mismatch if the factors disagree about K; whatever a reader throws
template <class T>
void gemm_nn(const matrix_source<T>& a, const std::type_identity_t<T>* k_scale, const matrix_source<T>& b,
             std::type_identity_t<function_ref<T*(std::size_t)>> c_row, executor& threads,
             gemm_path path = best_gemm_path()) {
    multiply(product<T>{a, k_scale, b, row_role::depth, c_row}, threads, path);
}

/// C[i,j] = sum over k of A[i,k] * B[j,k]: a projection, x W^T. A row of A is read once, a row of B once per 32 MiB of
/// A. Parameters as in gemm_nn, but for
///
/// @param b  [N, K]
template <class T>
void gemm_nt(const matrix_source<T>& a, const matrix_source<T>& b,
             std::type_identity_t<function_ref<T*(std::size_t)>> c_row, executor& threads,
             gemm_path path = best_gemm_path()) {
    multiply(product<T>{a, nullptr, b, row_role::column, c_row}, threads, path);
}

/// One product for each of several heads, with rows of a weight of its own: a plain linear layer is one head. Row r of
/// head h is row first_row + h / group * head_rows + r of the weight.
template <class T>
struct head_products {
    const matrix_source<T>& weight;
    std::size_t rows;  ///< of a head
    std::size_t tokens;
    const T* x;
    std::size_t x_token;  ///< values from a token to the next
    T* out;
    std::size_t out_token;
    std::size_t heads = 1;
    std::size_t group = 1;      ///< heads that share rows of the weight
    std::size_t head_rows = 0;  ///< from one head's first row to the next's
    std::size_t first_row = 0;
    std::size_t x_head = 0;  ///< values from a head to the next
    std::size_t out_head = 0;
    row_role role = row_role::column;  ///< what the rows of the weight are
};

/// The product of one head.
template <class T>
void multiply_head(const head_products<T>& p, std::size_t head, executor& threads, gemm_path path) {
    const std::size_t first = p.first_row + head / p.group * p.head_rows;
    const matrix_source<T>& w = p.weight;
    const auto read = [&](std::size_t begin, std::size_t end, T* out, std::size_t stride) {
        w.read_rows(first + begin, first + end, out, stride);
    };
    const T* const data = w.data == nullptr ? nullptr : w.data + first * w.row_stride;
    const matrix_source<T> rows{p.rows, w.cols, read, data, w.row_stride, w.stored.from_row(first)};
    const std::size_t x_cols = p.role == row_role::column ? w.cols : p.rows;
    const dense_rows<T> x{p.x + head * p.x_head, p.tokens, x_cols, p.x_token};
    const matrix_source<T> a = x.source();
    const auto out_row = [&](std::size_t t) { return p.out + t * p.out_token + head * p.out_head; };
    multiply<T>({a, nullptr, rows, p.role, out_row}, threads, path);
}

/// All of them. Few tokens share the heads' rows among the threads; more give each thread whole heads.
template <class T>
void multiply_heads(const head_products<T>& p, executor& threads, gemm_path path = best_gemm_path()) {
    if (p.tokens == 0 || p.heads == 0) return;
    if constexpr (std::is_same_v<T, float>) {
        if (p.tokens <= few_rows_limit && p.weight.cols != 0 && p.rows != 0) {
            float* out[few_rows_limit];
            for (std::size_t t = 0; t < p.tokens; ++t) out[t] = p.out + t * p.out_token;
            const few_product few{.weight = p.weight,
                                  .rows = p.rows,
                                  .tokens = p.tokens,
                                  .x = {p.x, p.x_token},
                                  .out = out,
                                  .heads = p.heads,
                                  .group = p.group,
                                  .head_rows = p.head_rows,
                                  .first_row = p.first_row,
                                  .x_head = p.x_head,
                                  .out_head = p.out_head};
            if (p.role == row_role::column) return multiply_few_rows(few, level_of(path), threads);
            return multiply_few_steps(few, level_of(path), threads);
        }
    }
    if (p.heads < thread_count(threads) || path == gemm_path::blas || !std::is_same_v<T, float>) {  // BLAS has threads
        for (std::size_t head = 0; head < p.heads; ++head) multiply_head(p, head, threads, path);
        return;
    }
    threads.run(p.heads, [&](std::size_t head) {
        serial_executor here;
        multiply_head(p, head, here, path);
    });
}

}  // namespace larql::detail

#endif
