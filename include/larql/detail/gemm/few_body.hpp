// SPDX-License-Identifier: Apache-2.0
//
// Kernels for few rows of activations: lanes are columns of the weight. A row's sum with a token goes through the
// columns in one order, however many rows and tokens are worked on at once, so that the bits of a result do not depend
// on the others. Included once per level of vector code by gemm/few_kernels.hpp; see simd_levels.hpp.
#ifdef LARQL_SIMD_NAMESPACE

namespace larql::detail::LARQL_SIMD_NAMESPACE::few {

LARQL_SIMD_FUNCTION inline void fold(const partial_sum* sums, float* totals) {
    vfloat rows[rows_at_once];
    LARQL_UNROLL for (std::size_t r = 0; r < rows_at_once; ++r) rows[r] = load(sums[r].lane);
    fold_rows(rows, totals);
}

/// A dot_numbers_kernel.
template <std::size_t Tokens, class E>
LARQL_SIMD_FUNCTION void dot_numbers(const number_rows& w, const token_rows& x, float (*sums)[rows_at_once]) {
    const E* row[rows_at_once];
    LARQL_UNROLL for (std::size_t r = 0; r < rows_at_once; ++r) row[r] = reinterpret_cast<const E*>(w.row[r]);
    vfloat total[Tokens][rows_at_once] = {};
    for (std::size_t begin = 0, index = 0; begin < w.columns; begin += w.segment, ++index) {
        const std::size_t end = w.columns - begin < w.segment ? w.columns : begin + w.segment;
        vfloat sum[Tokens][rows_at_once] = {};
        std::size_t c = begin;
        for (; c + lanes <= end; c += lanes) {
            vfloat y[Tokens];
            LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) y[t] = load(x.data + t * x.stride + c);
            LARQL_UNROLL for (std::size_t r = 0; r < rows_at_once; ++r) {
                const vfloat number = load(row[r] + c);
                LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) sum[t][r] = multiply_add(number, y[t], sum[t][r]);
            }
        }
        if (c < end) {  // the rest, in vectors that end with zeros
            float others[lanes] = {};
            for (std::size_t r = 0; r < rows_at_once; ++r) {
                E numbers[lanes] = {};
                __builtin_memcpy(numbers, row[r] + c, (end - c) * sizeof(E));
                const vfloat number = load(numbers);
                for (std::size_t t = 0; t < Tokens; ++t) {
                    __builtin_memcpy(others, x.data + t * x.stride + c, (end - c) * sizeof(float));
                    sum[t][r] = multiply_add(number, load(others), sum[t][r]);
                }
            }
        }
        LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) {
            LARQL_UNROLL for (std::size_t r = 0; r < rows_at_once; ++r) total[t][r] =
                w.scales[r] == nullptr ? sum[t][r]
                                       : multiply_add(sum[t][r], broadcast(w.scales[r][index]), total[t][r]);
        }
    }
    LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) fold_rows(total[t], sums[t]);
}

template <block_scaling Scaling>
LARQL_SIMD_INLINE detail::lanes integers_of(const unpacked_rows& w, std::size_t r, std::size_t k) noexcept {
    if constexpr (Scaling != block_scaling::looked_up) {
        return w.q[r][k];
    } else {
#if LARQL_SIMD_BYTES > 16
        return look_up(load_lanes(reinterpret_cast<const std::byte*>(w.table)), w.q[r][k]);
#else
        detail::lanes q;
        for (std::size_t i = 0; i < 16; ++i) q[i] = static_cast<std::uint8_t>(w.table[w.q[r][k][i]]);
        return q;
#endif
    }
}

/// A dot_unpacked_kernel.
template <std::size_t Tokens, block_scaling Scaling>
LARQL_SIMD_FUNCTION void dot_unpacked(const unpacked_rows& w, const token_rows& x, partial_sum (*sums)[rows_at_once]) {
    vfloat sum[Tokens][rows_at_once];
    LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) {
        LARQL_UNROLL for (std::size_t r = 0; r < rows_at_once; ++r) sum[t][r] = load(sums[t][r].lane);
    }
    for (std::size_t k = 0; k < w.count; ++k) {
        LARQL_UNROLL for (std::size_t first = 0; first < 16; first += lanes) {
            vfloat y[Tokens];
            LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) y[t] = load(x.data + t * x.stride + 16 * k + first);
            LARQL_UNROLL for (std::size_t r = 0; r < rows_at_once; ++r) {
                vfloat number = widened(integers_of<Scaling>(w, r, k), first);
                if constexpr (Scaling == block_scaling::shifted)
                    number = multiply_add(number, broadcast(w.scale[r][k]), broadcast(w.offset[r][k]));
                else
                    number *= broadcast(w.scale[r][k]);
                LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) sum[t][r] = multiply_add(number, y[t], sum[t][r]);
            }
        }
    }
    LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) {
        LARQL_UNROLL for (std::size_t r = 0; r < rows_at_once; ++r) store(sums[t][r].lane, sum[t][r]);
    }
}

/// An add_numbers_kernel.
template <class E>
LARQL_SIMD_FUNCTION void add_numbers(const std::byte* rows, std::size_t row_bytes, std::size_t count,
                                     std::size_t columns, const float* factors, bool add, float* out) {
    const auto at = [=](std::size_t r, std::size_t c) { return reinterpret_cast<const E*>(rows + r * row_bytes) + c; };
    std::size_t c = 0;
    for (; c + lanes <= columns; c += lanes) {
        vfloat sum = add ? load(out + c) : vfloat{};
        for (std::size_t r = 0; r < count; ++r) sum = multiply_add(broadcast(factors[r]), load(at(r, c)), sum);
        store(out + c, sum);
    }
    if (c == columns) return;
    float rest[lanes] = {};
    if (add) __builtin_memcpy(rest, out + c, (columns - c) * sizeof(float));
    vfloat sum = load(rest);
    for (std::size_t r = 0; r < count; ++r) {
        E numbers[lanes] = {};
        __builtin_memcpy(numbers, at(r, c), (columns - c) * sizeof(E));
        sum = multiply_add(broadcast(factors[r]), load(numbers), sum);
    }
    store(rest, sum);
    __builtin_memcpy(out + c, rest, (columns - c) * sizeof(float));
}

/// Whether there are registers for the sums of four tokens.
inline constexpr bool has_four_tokens = lanes == 16;

template <class E>
constexpr dot_numbers_kernel dot_of_four() noexcept {
    if constexpr (has_four_tokens)
        return dot_numbers<4, E>;
    else
        return nullptr;
}
template <block_scaling Scaling>
constexpr dot_unpacked_kernel dot_of_four() noexcept {
    if constexpr (has_four_tokens)
        return dot_unpacked<4, Scaling>;
    else
        return nullptr;
}

#if LARQL_SIMD_BYTES > 16
constexpr dot_numbers_kernel dot_q4_k_of_four() noexcept {
    if constexpr (has_four_tokens)
        return dot_q4_k<4>;
    else
        return nullptr;
}
#endif

#define LARQL_FEW_NUMBERS(E) \
    { dot_numbers<1, E>, dot_numbers<2, E>, dot_of_four<E>() }
#define LARQL_FEW_SCALED(C) \
    { dot_scaled<1, C>, dot_scaled<2, C>, dot_scaled<4, C> }
#define LARQL_FEW_UNPACKED(S) \
    { dot_unpacked<1, block_scaling::S>, dot_unpacked<2, block_scaling::S>, dot_of_four<block_scaling::S>() }
inline constexpr few_kernels kernels{
    {LARQL_FEW_NUMBERS(float),
     LARQL_FEW_NUMBERS(f16),
     LARQL_FEW_NUMBERS(bf16),
     LARQL_FEW_NUMBERS(e4m3_bits),
#if LARQL_SIMD_BYTES > 16
     LARQL_FEW_SCALED(byte_codes),
     LARQL_FEW_SCALED(nibble_codes),
     {dot_q4_k<1>, dot_q4_k<2>, dot_q4_k_of_four()}
#endif
    },
    {LARQL_FEW_UNPACKED(scaled), LARQL_FEW_UNPACKED(shifted), LARQL_FEW_UNPACKED(looked_up)},
    fold,
    {add_numbers<float>, add_numbers<f16>, add_numbers<bf16>, add_numbers<e4m3_bits>}};
#undef LARQL_FEW_NUMBERS
#undef LARQL_FEW_SCALED
#undef LARQL_FEW_UNPACKED

}  // namespace larql::detail::LARQL_SIMD_NAMESPACE::few

#endif
