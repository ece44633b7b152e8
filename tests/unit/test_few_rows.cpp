// SPDX-License-Identifier: Apache-2.0
//
// Products of few rows from stored bytes, against decoding first and multiplying in double.
#include <larql/detail/gemm.hpp>
#include <larql/detail/ggml/stored.hpp>
#include <larql/ggml_blocks.hpp>

#include <support/random.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

using larql::dtype;
using larql::detail::few_rows_limit;
using larql::detail::gemm_path;
using larql::detail::matrix_source;
using larql::detail::row_role;
using larql::testing::random_source;

namespace {

// One for each level of vector code that this machine has.
std::vector<gemm_path> paths() {
    std::vector<gemm_path> out{gemm_path::blas, gemm_path::portable};
    const auto level = larql::detail::detected_simd_level();
    if (level >= larql::detail::simd_level::avx2) out.push_back(gemm_path::avx2);
    if (level >= larql::detail::simd_level::avx512) out.push_back(gemm_path::avx512);
    return out;
}

// The types that products compute from as they are stored.
std::vector<dtype> stored_types() {
    std::vector<dtype> out;
    for (const larql::dtype_traits& traits : larql::detail::dtype_table)
        if (larql::detail::stored_matrix_of(traits.type, nullptr, 256).row_bytes != 0) out.push_back(traits.type);
    return out;
}

// Rows of a type, and the numbers that they stand for. Read like a weight in memory.
class stored_rows {
public:
    stored_rows(dtype type, std::size_t rows, std::size_t cols, std::uint64_t seed)
        : numbers(rows * cols), m_type(type), m_rows(rows), m_cols(cols) {
        const larql::dtype_traits& traits = larql::traits_of(type);
        m_row_bytes = cols / traits.block_elements * traits.block_bytes;
        m_bytes.resize(rows * m_row_bytes);
        random_source random(seed);
        if (traits.kind == larql::dtype_kind::floating && traits.block_bytes > 1) {
            random.fill_normal(numbers);
            larql::quantize(type, numbers, m_bytes);
        } else {
            for (std::byte& b : m_bytes) b = static_cast<std::byte>(random.bits());
        }
        larql::dequantize(type, m_bytes, numbers);
        tame(traits);
    }

    std::vector<float> numbers;

    [[nodiscard]] matrix_source<float> source() const {
        return {m_rows, m_cols, *this, nullptr, 0, larql::detail::stored_matrix_of(m_type, m_bytes.data(), m_cols)};
    }
    void operator()(std::size_t begin, std::size_t end, float* out, std::size_t stride) const {
        for (std::size_t r = begin; r < end; ++r, out += stride) std::copy_n(numbers.data() + r * m_cols, m_cols, out);
    }
    [[nodiscard]] std::size_t cols() const { return m_cols; }

private:
    // Blocks of random bytes that are not finite, or huge, become others.
    void tame(const larql::dtype_traits& traits) {
        const std::size_t elements = traits.block_elements;
        bool changed = false;
        for (std::size_t b = 0; b < numbers.size() / elements; ++b) {
            const std::span<const float> block(numbers.data() + b * elements, elements);
            if (std::ranges::all_of(block, [](float x) { return std::abs(x) < 1e6F; })) continue;
            changed = true;
            for (std::size_t i = 0; i < traits.block_bytes; ++i) m_bytes[b * traits.block_bytes + i] &= std::byte{0x3f};
        }
        if (changed) larql::dequantize(m_type, m_bytes, numbers);
    }

    dtype m_type;
    std::size_t m_rows;
    std::size_t m_cols;
    std::size_t m_row_bytes;
    std::vector<std::byte> m_bytes;
};

std::vector<float> activations(std::size_t count, std::uint64_t seed) {
    std::vector<float> out(count);
    random_source random(seed);
    random.fill_normal(out);
    return out;
}

// What sums of k products in float may lose. Sums run in lanes of four at least, so that a number passes a quarter of
// the additions.
bool close(float got, double want, double magnitude, std::size_t k) {
    const double allowed = (static_cast<double>(k) / 4 + 8) * (0x1p-23 * magnitude + 0x1p-149);
    return std::abs(static_cast<double>(got) - want) <= allowed;
}

// How the heads of a product lie in the weight, in the activations and in the results.
struct head_layout {
    std::size_t heads = 1, group = 1, head_rows = 0, first_row = 0;
};

std::size_t wrong_results(const stored_rows& w, std::size_t rows, std::size_t tokens, row_role role, gemm_path path,
                          const head_layout& layout, larql::executor& threads) {
    const bool steps = role == row_role::depth;
    const std::size_t depth = steps ? rows : w.cols(), width = steps ? w.cols() : rows, gap = 3;
    const std::size_t x_head = depth + gap, x_token = layout.heads * x_head + gap;
    const std::size_t out_head = width + gap, out_token = layout.heads * out_head + gap;
    const std::vector<float> x = activations(tokens * x_token, 5);
    std::vector<float> out(tokens * out_token, -77.0F);
    larql::detail::multiply_heads<float>({.weight = w.source(),
                                          .rows = rows,
                                          .tokens = tokens,
                                          .x = x.data(),
                                          .x_token = x_token,
                                          .out = out.data(),
                                          .out_token = out_token,
                                          .heads = layout.heads,
                                          .group = layout.group,
                                          .head_rows = layout.head_rows,
                                          .first_row = layout.first_row,
                                          .x_head = x_head,
                                          .out_head = out_head,
                                          .role = role},
                                         threads, path);
    std::size_t wrong = 0;
    for (std::size_t t = 0; t < tokens; ++t)
        for (std::size_t h = 0; h < layout.heads; ++h) {
            const float* const numbers =
                w.numbers.data() + (layout.first_row + h / layout.group * layout.head_rows) * w.cols();
            const float* const from = x.data() + t * x_token + h * x_head;
            float* const got = out.data() + t * out_token + h * out_head;
            for (std::size_t j = 0; j < width; ++j) {
                double want = 0.0, magnitude = 0.0;
                for (std::size_t k = 0; k < depth; ++k) {
                    const float number = steps ? numbers[k * w.cols() + j] : numbers[j * w.cols() + k];
                    want += static_cast<double>(number) * static_cast<double>(from[k]);
                    magnitude += std::abs(static_cast<double>(number) * static_cast<double>(from[k]));
                }
                wrong += close(got[j], want, magnitude, depth) ? 0U : 1U;
                got[j] = -77.0F;
            }
        }
    wrong += static_cast<std::size_t>(std::ranges::count_if(out, [](float x_) { return x_ != -77.0F; }));
    return wrong;  // what is not a result was not written
}

}  // namespace

TEST_CASE("few rows: products from every stored type are those of its decoded numbers") {
    const std::vector<dtype> types = stored_types();
    CHECK(types.size() == 4 + 27);  // four floating-point formats, and ggml's blocks
    larql::thread_pool pool(2);
    for (const dtype type : types) {
        CAPTURE(std::string(to_string(type)));
        const std::size_t block = larql::traits_of(type).block_elements;
        std::vector<std::size_t> widths{block, 3 * block, 1024 / block * block + block};
        if (block == 1) widths = {1, 5, 16, 33, 128, 1030};
        for (const std::size_t cols : widths)
            for (const std::size_t rows : {1U, 3U, 4U, 9U}) {
                const stored_rows w(type, rows, cols, cols + rows);
                for (const gemm_path path : paths())
                    for (const std::size_t tokens : {1U, 2U, 3U, 7U, 16U, 17U}) {
                        CAPTURE(cols);
                        CAPTURE(rows);
                        CAPTURE(tokens);
                        CAPTURE(std::string(to_string(path)));
                        CHECK(wrong_results(w, rows, tokens, row_role::column, path, {}, pool) == 0);
                    }
            }
    }
}

TEST_CASE("few rows: heads take their rows of one weight, as columns or as steps of the product") {
    larql::thread_pool pool(3);
    for (const dtype type : {dtype::f32, dtype::bf16, dtype::f8_e4m3, dtype::q8_0, dtype::q4_k, dtype::iq4_nl}) {
        CAPTURE(std::string(to_string(type)));
        const std::size_t cols = larql::traits_of(type).block_elements == 256 ? 512 : 96;
        const stored_rows w(type, 100, cols, 3);
        for (const gemm_path path : paths())
            for (const row_role role : {row_role::column, row_role::depth})
                for (const std::size_t tokens : {1U, 5U, 16U, 20U}) {
                    CAPTURE(tokens);
                    CAPTURE(role == row_role::depth);
                    // Ten heads of 6 rows, every 9 rows, from the fourth row on; pairs of heads that share rows; more
                    // rows than a panel holds.
                    CHECK(wrong_results(w, 6, tokens, role, path, {10, 1, 9, 4}, pool) == 0);
                    CHECK(wrong_results(w, 7, tokens, role, path, {8, 2, 25, 0}, pool) == 0);
                    CHECK(wrong_results(w, 90, tokens, role, path, {2, 1, 10, 0}, pool) == 0);
                }
    }
}

TEST_CASE("few rows: a weight's scales are those of its rows and columns, also behind a first row") {
    const std::size_t rows = 70, cols = 200;
    const stored_rows codes(dtype::f8_e4m3, rows, cols, 8);
    const std::vector<float> scales = activations(7 * 4, 9);  // blocks of 10 rows and 64 columns
    const larql::detail::stored_scales blocks{scales.data(), 4, 10, 64};
    const larql::detail::stored_scales channels{scales.data(), 1, 4, cols};
    for (const auto& scaled : {blocks, channels}) {
        matrix_source<float> source = codes.source();
        source.stored.scales = scaled;
        const std::vector<float> x = activations(3 * cols, 10);
        for (const gemm_path path : paths()) {
            std::vector<float> out(3 * 50);
            larql::serial_executor serial;
            larql::detail::multiply_heads<float>({.weight = source,
                                                  .rows = 50,
                                                  .tokens = 3,
                                                  .x = x.data(),
                                                  .x_token = cols,
                                                  .out = out.data(),
                                                  .out_token = 50,
                                                  .first_row = 13},
                                                 serial, path);
            for (std::size_t t = 0; t < 3; ++t)
                for (std::size_t r = 0; r < 50; ++r) {
                    double want = 0.0, magnitude = 0.0;
                    for (std::size_t c = 0; c < cols; ++c) {
                        const std::size_t at = (13 + r) / scaled.block_rows * scaled.stride + c / scaled.block_columns;
                        const double term = static_cast<double>(codes.numbers[(13 + r) * cols + c]) *
                                            static_cast<double>(scales[at]) * static_cast<double>(x[t * cols + c]);
                        want += term;
                        magnitude += std::abs(term);
                    }
                    CHECK(close(out[t * 50 + r], want, magnitude, cols));
                }
        }
    }
}

TEST_CASE("few rows: the bits of a token's results depend neither on the other tokens nor on the threads") {
    larql::serial_executor serial;
    larql::thread_pool pool(3);
    for (const dtype type : {dtype::f32, dtype::f16, dtype::f8_e4m3, dtype::q6_k, dtype::q5_1}) {
        const std::size_t rows = 61, cols = 768;
        const stored_rows w(type, rows, cols, 4);
        const std::vector<float> x = activations(few_rows_limit * cols, 6);
        for (const gemm_path path : paths()) {
            const auto product = [&](std::size_t first, std::size_t tokens, larql::executor& threads) {
                std::vector<float> out(tokens * rows);
                larql::detail::multiply_heads<float>({.weight = w.source(),
                                                      .rows = rows,
                                                      .tokens = tokens,
                                                      .x = x.data() + first * cols,
                                                      .x_token = cols,
                                                      .out = out.data(),
                                                      .out_token = rows},
                                                     threads, path);
                return out;
            };
            const std::vector<float> all = product(0, few_rows_limit, serial);
            CHECK(product(0, few_rows_limit, pool) == all);
            for (const std::size_t tokens : {1U, 3U})
                for (std::size_t t = 0; t + tokens <= few_rows_limit; t += tokens) {
                    const std::vector<float> some = product(t, tokens, pool);
                    CHECK(std::equal(some.begin(), some.end(), all.begin() + static_cast<std::ptrdiff_t>(t * rows)));
                }
        }
    }
}
