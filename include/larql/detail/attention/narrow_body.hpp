// SPDX-License-Identifier: Apache-2.0
//
// Kernels for few query rows, as when decoding: lanes are elements of a head. Keys and values stream from memory
// once, are converted in registers, and meet all rows of the group there. They are read in the order in which a cache
// [S, G, D] lies, and every load asks for what will be loaded a tile of tokens later.
// Included once per level of vector code, after the kernels for many; see simd_levels.hpp.
#ifdef LARQL_SIMD_NAMESPACE

namespace larql::detail::LARQL_SIMD_NAMESPACE::attention {

/// Query rows of a head up to which this form is used; the number of sums that are kept in registers.
inline constexpr std::size_t narrow_rows = lanes < 8 ? lanes : 8;

/// Asks for a cache line some bytes ahead, which may lie outside of any array. Into the second-level cache: a token's
/// keys of all heads are often a multiple of 4 KiB, so that rows of several tokens share the few lines of one set of a
/// first-level cache, and what is fetched there ahead drives out what is being read.
LARQL_SIMD_INLINE void prefetch(const void* from, std::ptrdiff_t bytes) noexcept {
    __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::intptr_t>(from) + bytes), 0, 2);
}

/// lanes / Rows tokens of a head at a time or fewer, and the same tokens of all heads before the next. Tokens beyond
/// the last are read as the last and their scores are meaningless.
template <std::size_t Rows, class E>
LARQL_SIMD_FUNCTION void score_few(const stored_heads& keys, const float* q, std::size_t depth, float* scores,
                                   std::size_t width) {
    constexpr std::size_t tile = std::min(lanes / Rows, most_rows_aside);
    const std::ptrdiff_t ahead = static_cast<std::ptrdiff_t>(tile) * keys.token_stride;
    for (std::size_t token = 0; token < keys.tokens; token += tile) {
        std::ptrdiff_t offset[tile];
        LARQL_UNROLL for (std::size_t j = 0; j < tile; ++j) offset[j] =
            static_cast<std::ptrdiff_t>(std::min(token + j, keys.tokens - 1)) * keys.token_stride;
        for (std::size_t h = 0; h < keys.heads; ++h) {
            const std::byte* const data = keys.data + static_cast<std::ptrdiff_t>(h) * keys.head_stride;
            const E* row[tile];
            LARQL_UNROLL for (std::size_t j = 0; j < tile; ++j) row[j] = reinterpret_cast<const E*>(data + offset[j]);
            const float* const rows = q + h * Rows * depth;
            vfloat sum[lanes];
            LARQL_UNROLL for (std::size_t i = 0; i < lanes; ++i) sum[i] = vfloat{};
            for (std::size_t d = 0; d < depth; d += lanes) {
                vfloat x[Rows];
                LARQL_UNROLL for (std::size_t r = 0; r < Rows; ++r) x[r] = load(rows + r * depth + d);
                LARQL_UNROLL for (std::size_t j = 0; j < tile; ++j) {
                    prefetch(row[j] + elements_of<E>(d), ahead);
                    const vfloat y = load_row(row[j], d);
                    LARQL_UNROLL for (std::size_t r = 0; r < Rows; ++r) sum[j * Rows + r] =
                        multiply_add(x[r], y, sum[j * Rows + r]);
                }
            }
            float folded[lanes];
            store(folded, fold_lanes(sum));
            LARQL_UNROLL for (std::size_t j = 0; j < tile; ++j)
                __builtin_memcpy(scores + (token + j) * width + h * Rows, folded + j * Rows, Rows * sizeof(float));
        }
    }
}

/// Tokens whose values are added before the next head has its turn, where there are several.
inline constexpr std::ptrdiff_t value_tile_tokens = 8;

/// Vectors vectors of one head, from column `first` on; `out` begins there.
template <std::size_t Rows, std::size_t Vectors, class E>
LARQL_SIMD_FUNCTION void add_few_columns(const row_block& values, std::size_t first, std::size_t columns,
                                         const float* weights, std::size_t width, float* out) {
    vfloat sum[Rows][Vectors];
    LARQL_UNROLL for (std::size_t r = 0; r < Rows; ++r) {
        LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) sum[r][i] = load(out + r * columns + i * lanes);
    }
    const std::byte* data = values.data;
    const std::ptrdiff_t ahead = value_tile_tokens * values.stride;
    for (std::size_t j = 0; j < values.rows; ++j, data += values.stride) {
        const E* row = reinterpret_cast<const E*>(data);
        vfloat y[Vectors];
        LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) {
            prefetch(row + elements_of<E>(first + i * lanes), ahead);
            y[i] = load_row(row, first + i * lanes);
        }
        LARQL_UNROLL for (std::size_t r = 0; r < Rows; ++r) {
            const vfloat w = broadcast(weights[j * width + r]);
            LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) sum[r][i] = multiply_add(w, y[i], sum[r][i]);
        }
    }
    LARQL_UNROLL for (std::size_t r = 0; r < Rows; ++r) {
        LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) store(out + r * columns + i * lanes, sum[r][i]);
    }
}

/// Some tokens of all heads before the next tokens, in the order of memory.
template <std::size_t Rows, class E>
LARQL_SIMD_FUNCTION void add_few(const stored_heads& values, std::size_t columns, const float* weights,
                                 std::size_t width, float* out) {
    constexpr std::size_t sums = LARQL_SIMD_BYTES == 64 ? 16 : 8;
    constexpr std::size_t most = std::max<std::size_t>(1, std::min<std::size_t>(8, sums / Rows));
    const std::size_t tile = values.heads > 1 ? std::size_t{value_tile_tokens} : values.tokens;
    for (std::size_t token = 0; token < values.tokens; token += tile) {
        const std::size_t n = std::min(tile, values.tokens - token);
        const std::byte* data = values.data + static_cast<std::ptrdiff_t>(token) * values.token_stride;
        for (std::size_t h = 0; h < values.heads; ++h, data += values.head_stride) {
            const float* const w = weights + token * width + h * Rows;
            float* const to = out + h * Rows * columns;
            const row_block rows{data, values.token_stride, n};
            std::size_t c = 0;
            for (; c + most * lanes <= columns; c += most * lanes)
                add_few_columns<Rows, most, E>(rows, c, columns, w, width, to + c);
            for (; c < columns; c += lanes) add_few_columns<Rows, 1, E>(rows, c, columns, w, width, to + c);
        }
    }
}

template <std::size_t Rows, class E>
constexpr score_few_kernel score_few_or_null() noexcept {
    if constexpr (Rows <= narrow_rows) return score_few<Rows, E>;
    return nullptr;
}
template <std::size_t Rows, class E>
constexpr add_few_kernel add_few_or_null() noexcept {
    if constexpr (Rows <= narrow_rows) return add_few<Rows, E>;
    return nullptr;
}

template <class E>
inline constexpr storage_kernels kernels_of{
    convert<E>,
    {score_few<1, E>, score_few<2, E>, score_few<4, E>, score_few_or_null<8, E>()},
    {add_few<1, E>, add_few<2, E>, add_few<4, E>, add_few_or_null<8, E>()}};

inline constexpr level_kernels kernels{{lanes, narrow_rows},
                                       score_keys,
                                       value_rows,
                                       score_panel,
                                       cap_scores,
                                       mask_scores,
                                       weigh_scores,
                                       add_weighted_values<value_rows, value_vectors>,
                                       add_weighted_values<1, 1>,
                                       all_finite,
                                       pack_lanes,
                                       scale_row,
                                       add_scaled_row};

}  // namespace larql::detail::LARQL_SIMD_NAMESPACE::attention

#endif
