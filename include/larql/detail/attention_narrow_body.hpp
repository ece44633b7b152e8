// SPDX-License-Identifier: Apache-2.0
//
// Kernels for few query rows, as when decoding: lanes are elements of a head. Keys and values stream from memory
// once, are converted in registers, and meet all rows of the group there.
// Included once per level of vector code, after the kernels for many; see simd_body.hpp.
#ifdef LARQL_SIMD_NAMESPACE

namespace larql::detail::LARQL_SIMD_NAMESPACE {

/// Query rows up to which this form is used; the number of sums that are kept in registers.
inline constexpr std::size_t narrow_rows = lanes < 8 ? lanes : 8;

/// lanes / Rows keys at a time. Keys beyond the block are read as its last one and their scores are meaningless.
template <std::size_t Rows, class E>
LARQL_SIMD_FUNCTION void score_few(const row_block& keys, const float* q, std::size_t depth, float* scores,
                                   memory_ahead& ahead) {
    constexpr std::size_t tile = lanes / Rows;
    const std::size_t lines = ceil_div(tile * depth * sizeof(E), memory_ahead::line);
    for (std::size_t key = 0; key < keys.rows; key += tile) {
        ahead.fetch(lines);
        const E* row[tile];
        LARQL_UNROLL for (std::size_t j = 0; j < tile; ++j) row[j] = reinterpret_cast<const E*>(
            keys.data + static_cast<std::ptrdiff_t>(std::min(key + j, keys.rows - 1)) * keys.stride);
        vfloat sum[lanes];
        LARQL_UNROLL for (std::size_t i = 0; i < lanes; ++i) sum[i] = vfloat{};
        for (std::size_t d = 0; d < depth; d += lanes) {
            vfloat x[Rows];
            LARQL_UNROLL for (std::size_t r = 0; r < Rows; ++r) x[r] = load(q + r * depth + d);
            LARQL_UNROLL for (std::size_t j = 0; j < tile; ++j) {
                const vfloat y = load(row[j] + d);
                LARQL_UNROLL for (std::size_t r = 0; r < Rows; ++r) sum[r * tile + j] += x[r] * y;
            }
        }
        float folded[lanes];
        store(folded, fold_lanes(sum));
        LARQL_UNROLL for (std::size_t r = 0; r < Rows; ++r)
            __builtin_memcpy(scores + r * narrow_key_block + key, folded + r * tile, tile * sizeof(float));
    }
}

/// Vectors vectors of add_few.
template <std::size_t Rows, std::size_t Vectors, class E>
LARQL_SIMD_FUNCTION void add_few_columns(const row_block& values, std::size_t columns, const float* weights,
                                         const float* keep, float* out, memory_ahead& ahead) {
    constexpr std::size_t lines = ceil_div(Vectors * lanes * sizeof(E), memory_ahead::line);
    vfloat sum[Rows][Vectors];
    LARQL_UNROLL for (std::size_t r = 0; r < Rows; ++r) {
        const vfloat factor = broadcast(keep[r]);
        LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) sum[r][i] = load(out + r * columns + i * lanes) * factor;
    }
    const std::byte* data = values.data;
    for (std::size_t j = 0; j < values.rows; ++j, data += values.stride) {
        const E* row = reinterpret_cast<const E*>(data);
        ahead.fetch(lines);
        vfloat y[Vectors];
        LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) y[i] = load(row + i * lanes);
        LARQL_UNROLL for (std::size_t r = 0; r < Rows; ++r) {
            const vfloat w = broadcast(weights[r * narrow_key_block + j]);
            LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) sum[r][i] += w * y[i];
        }
    }
    LARQL_UNROLL for (std::size_t r = 0; r < Rows; ++r) {
        LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) store(out + r * columns + i * lanes, sum[r][i]);
    }
}

template <std::size_t Rows, class E>
LARQL_SIMD_FUNCTION void add_few(const row_block& values, std::size_t columns, const float* weights, const float* keep,
                                 float* out, memory_ahead& ahead) {
    constexpr std::size_t sums = LARQL_SIMD_BYTES == 64 ? 16 : 8;
    constexpr std::size_t most = std::max<std::size_t>(1, std::min<std::size_t>(8, sums / Rows));
    const auto from = [&](std::size_t c) { return row_block{values.data + c * sizeof(E), values.stride, values.rows}; };
    std::size_t c = 0;
    for (; c + most * lanes <= columns; c += most * lanes)
        add_few_columns<Rows, most, E>(from(c), columns, weights, keep, out + c, ahead);
    for (; c < columns; c += lanes) add_few_columns<Rows, 1, E>(from(c), columns, weights, keep, out + c, ahead);
}

LARQL_SIMD_FUNCTION inline float weigh_row(float* scores, key_range seen, std::size_t keys, float cap,
                                           float& running_maximum, float& running_sum) {
    const float hidden = -std::numeric_limits<float>::infinity();
    const std::size_t padded = round_up(keys, lanes);
    if (cap > 0) cap_scores(scores, padded, cap);
    std::fill(scores, scores + seen.begin, hidden);
    std::fill(scores + seen.end, scores + padded, hidden);
    vfloat top = broadcast(running_maximum);
    for (std::size_t j = 0; j < padded; j += lanes) top = maximum(load(scores + j), top);
    const float after = max_lanes(top);
    const vfloat base = broadcast(after == hidden ? 0.0F : after);
    vfloat sum{};
    for (std::size_t j = 0; j < padded; j += lanes) {
        const vfloat weight = exp2_negative(load(scores + j) - base);
        store(scores + j, weight);
        sum += weight;
    }
    const float factor = exp2_negative(broadcast(running_maximum) - base)[0];
    running_maximum = after;
    running_sum = running_sum * factor + sum_lanes(sum);
    return factor;
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
    sizeof(E),
    convert<E>,
    {score_few<1, E>, score_few<2, E>, score_few<4, E>, score_few_or_null<8, E>()},
    {add_few<1, E>, add_few<2, E>, add_few<4, E>, add_few_or_null<8, E>()}};

inline constexpr level_kernels kernels{{lanes, narrow_rows}, score_keys,   value_rows, score_panel,       cap_scores,
                                       mask_scores,          weigh_scores, add_values, add_values_of_one, all_finite,
                                       pack_lanes,           weigh_row,    scale_row,  add_scaled_row};

}  // namespace larql::detail::LARQL_SIMD_NAMESPACE

#endif
