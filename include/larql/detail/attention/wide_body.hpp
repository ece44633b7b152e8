// SPDX-License-Identifier: Apache-2.0
//
// Kernels for many query rows: lanes are query rows. Query rows are packed in panels [D][width]; a block of keys
// times a panel gives the scores as [keys][width], so that the softmax runs down the lanes without any reduction
// across them, keys are never transposed, and the weights lie as the second product wants them.
// Included once per level of vector code; see simd_levels.hpp. level_kernels says what each function does.
#ifdef LARQL_SIMD_NAMESPACE

namespace larql::detail::LARQL_SIMD_NAMESPACE::attention {

/// Keys whose scores one tile of registers holds, rows and vectors of the result of the other; what is left over comes
/// in steps of score_keys keys, and in single vectors. Sums take 12 of 16 registers, or 16 of 32: fewer would leave
/// multiplications waiting for loads.
#if LARQL_SIMD_BYTES == 64
inline constexpr std::size_t tile_keys = 8, score_keys = 8, value_rows = 8, value_vectors = 2;
#else
inline constexpr std::size_t tile_keys = 6, score_keys = 2, value_rows = 4, value_vectors = 3;
#endif

/// scores[j][.] (+)= sum over d of keys[j][d] * q[d][.], for Keys keys and a panel of Vectors vectors.
template <std::size_t Keys, std::size_t Vectors>
LARQL_SIMD_FUNCTION void score_tile(const float* keys, std::size_t key_stride, const float* q, std::size_t depth,
                                    float* scores, bool accumulate) noexcept {
    constexpr std::size_t width = Vectors * lanes;
    vfloat sum[Keys][Vectors];
    LARQL_UNROLL for (std::size_t j = 0; j < Keys; ++j) {
        LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) {
            sum[j][i] = vfloat{};
            if (accumulate) sum[j][i] = load(scores + j * width + i * lanes);
        }
    }
    for (std::size_t d = 0; d < depth; ++d) {
        vfloat x[Vectors];
        LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) x[i] = load(q + d * width + i * lanes);
        LARQL_UNROLL for (std::size_t j = 0; j < Keys; ++j) {
            const vfloat k = broadcast(keys[j * key_stride + d]);
            LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) sum[j][i] = multiply_add(k, x[i], sum[j][i]);
        }
    }
    LARQL_UNROLL for (std::size_t j = 0; j < Keys; ++j) {
        LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) store(scores + j * width + i * lanes, sum[j][i]);
    }
}

LARQL_SIMD_FUNCTION inline void score_panel(const float* keys, std::size_t key_stride, std::size_t count,
                                            const float* q, std::size_t depth, std::size_t width, float* scores) {
    constexpr std::size_t cached_depth = 256;  // this much of a panel stays in the first-level cache
    const std::size_t parts = std::max<std::size_t>(1, ceil_div(depth, cached_depth));
    const std::size_t step = round_up(ceil_div(depth, parts), 16);
    const auto tile = width == lanes ? score_tile<tile_keys, 1> : score_tile<tile_keys, 2>;
    const auto rest = width == lanes ? score_tile<score_keys, 1> : score_tile<score_keys, 2>;
    std::size_t d = 0;
    do {
        const std::size_t n = std::min(step, depth - d);
        const auto score = [&](auto keys_tile, std::size_t j) {
            keys_tile(keys + j * key_stride + d, key_stride, q + d * width, n, scores + j * width, d > 0);
        };
        std::size_t j = 0;
        for (; j + tile_keys <= count; j += tile_keys) score(tile, j);
        for (; j < count; j += score_keys) score(rest, j);
        d += n;
    } while (d < depth);
}

/// out[r][.] = out[r][.] * keep[r] + sum over j of weights[j][r] * values[j][.], for Rows rows of Vectors vectors.
template <std::size_t Rows, std::size_t Vectors>
LARQL_SIMD_FUNCTION void value_tile(const float* weights, std::size_t weight_stride, const float* values,
                                    std::size_t value_stride, std::size_t keys, const float* keep, float* out,
                                    std::size_t out_stride) noexcept {
    vfloat sum[Rows][Vectors];
    LARQL_UNROLL for (std::size_t r = 0; r < Rows; ++r) {
        const vfloat factor = broadcast(keep[r]);
        LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) sum[r][i] =
            load(out + r * out_stride + i * lanes) * factor;
    }
    for (std::size_t j = 0; j < keys; ++j) {
        vfloat x[Vectors];
        LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) x[i] = load(values + j * value_stride + i * lanes);
        LARQL_UNROLL for (std::size_t r = 0; r < Rows; ++r) {
            const vfloat w = broadcast(weights[j * weight_stride + r]);
            LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) sum[r][i] = multiply_add(w, x[i], sum[r][i]);
        }
    }
    LARQL_UNROLL for (std::size_t r = 0; r < Rows; ++r) {
        LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) store(out + r * out_stride + i * lanes, sum[r][i]);
    }
}

/// Adds to `rows` rows, Rows at a time. They meet a few columns of the values, which stay in the first-level cache,
/// before the next columns have their turn.
template <std::size_t Rows, std::size_t Vectors>
LARQL_SIMD_FUNCTION void add_weighted_values(const float* weights, std::size_t width, const float* values,
                                             std::size_t value_stride, std::size_t keys, const float* keep, float* out,
                                             std::size_t out_stride, std::size_t rows) {
    const auto add = [&](auto tile, std::size_t c) {
        for (std::size_t r = 0; r < rows; r += Rows)
            tile(weights + r, width, values + c, value_stride, keys, keep + r, out + r * out_stride + c, out_stride);
    };
    std::size_t c = 0;
    for (; c + Vectors * lanes <= out_stride; c += Vectors * lanes) add(value_tile<Rows, Vectors>, c);
    for (; c < out_stride; c += lanes) add(value_tile<Rows, 1>, c);
}

LARQL_SIMD_FUNCTION inline void cap_scores(float* scores, std::size_t n, float cap) {
    for (std::size_t i = 0; i < n; i += lanes) store(scores + i, tanh(load(scores + i)) * cap);
}

LARQL_SIMD_FUNCTION inline void mask_scores(float* scores, const key_range* seen, std::size_t first, std::size_t keys,
                                            std::size_t width) {
    const std::size_t row_bits = std::min(width, lanes) - 1;
    const std::size_t keys_of_vector = lanes / (row_bits + 1);
    std::int32_t begin[lanes];
    std::int32_t end[lanes];
    const vfloat hidden = broadcast(-std::numeric_limits<float>::infinity());
    for (std::size_t i = 0; i < width; i += lanes) {
        for (std::size_t l = 0; l < lanes; ++l) {
            const key_range& range = seen[i + (l & row_bits)];
            const auto key = static_cast<std::int32_t>(l / (row_bits + 1));
            begin[l] = static_cast<std::int32_t>(std::clamp(range.begin, first, first + keys) - first) - key;
            end[l] = static_cast<std::int32_t>(std::clamp(range.end, first, first + keys) - first) - key;
        }
        const vint from = load(begin);
        const vint to = load(end);
        float* at = scores + i;
        for (std::size_t j = 0; j < keys; j += keys_of_vector, at += std::max(width, lanes)) {
            const vint key = broadcast(static_cast<std::int32_t>(j));
            store(at, ((key >= from) & (key < to)) ? load(at) : hidden);
        }
    }
}

/// Joins the lanes of x that are a multiple of `width` apart; each gets the result.
template <vfloat (*Join)(vfloat, vfloat) noexcept>
LARQL_SIMD_INLINE vfloat join_lanes(vfloat x, std::size_t width) noexcept {
    for (std::size_t n = lanes / 2; n >= width; n /= 2) {
        float twice[2 * lanes];
        store(twice, x);
        store(twice + lanes, x);
        x = Join(x, load(twice + n));
    }
    return x;
}

LARQL_SIMD_FUNCTION inline void weigh_scores(float* scores, std::size_t keys, std::size_t width, float* running_maximum,
                                             float* running_sum, float* keep) {
    const float hidden = -std::numeric_limits<float>::infinity();
    const std::size_t stride = std::max(width, lanes);
    const std::size_t vectors = ceil_div(keys * width, stride);  // of one column of vectors
    for (std::size_t i = keys * width; i < vectors * stride; ++i) scores[i] = hidden;
    for (std::size_t i = 0; i < width; i += lanes) {
        float* column = scores + i;
        const vfloat before = load(running_maximum + i);
        vfloat top[4] = {before, before, before, before};  // four chains hide the latency
        std::size_t j = 0;
        for (; j + 4 <= vectors; j += 4)
            LARQL_UNROLL for (std::size_t c = 0; c < 4; ++c) top[c] = maximum(load(column + (j + c) * stride), top[c]);
        for (; j < vectors; ++j) top[0] = maximum(load(column + j * stride), top[0]);
        const vfloat after = join_lanes<maximum>(maximum(maximum(top[0], top[1]), maximum(top[2], top[3])), width);
        const vfloat base = after == hidden ? vfloat{} : after;
        const vfloat factor = exp2_negative(before - base);
        vfloat sum{};
        for (j = 0; j < vectors; ++j) {
            const vfloat weight = exp2_negative(load(column + j * stride) - base);
            store(column + j * stride, weight);
            sum += weight;
        }
        sum = join_lanes<plus>(sum, width);
        store(running_maximum + i, after);
        store(running_sum + i, multiply_add(load(running_sum + i), factor, sum));
        store(keep + i, factor);
    }
}

LARQL_SIMD_FUNCTION inline bool all_finite(const float* values, std::size_t stride, std::size_t rows,
                                           std::size_t columns) {
    vfloat zero{};
    for (std::size_t j = 0; j < rows; ++j)
        for (std::size_t c = 0; c < columns; c += lanes) zero += load(values + j * stride + c) * 0.0F;
    return sum_lanes(zero) == 0.0F;
}

LARQL_SIMD_FUNCTION inline void pack_lanes(const float* const* rows, std::size_t depth, std::size_t width, float factor,
                                           float* to) {
    std::size_t d = 0;
    for (; d + lanes <= depth; d += lanes) {
        vfloat x[lanes];
        LARQL_UNROLL for (std::size_t i = 0; i < lanes; ++i) {
            x[i] = vfloat{};
            if (rows[i] != nullptr) x[i] = load(rows[i] + d) * factor;
        }
        transpose(x);
        LARQL_UNROLL for (std::size_t i = 0; i < lanes; ++i) store(to + (d + i) * width, x[i]);
    }
    for (; d < depth; ++d)
        for (std::size_t i = 0; i < lanes; ++i) to[d * width + i] = rows[i] == nullptr ? 0.0F : rows[i][d] * factor;
}

LARQL_SIMD_FUNCTION inline void scale_row(const float* from, std::size_t n, float factor, float* to) {
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes) store(to + i, load(from + i) * factor);
    for (; i < n; ++i) to[i] = from[i] * factor;
}

LARQL_SIMD_FUNCTION inline void add_scaled_row(const float* from, std::size_t n, float factor, float* to) {
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes) store(to + i, multiply_add(load(from + i), broadcast(factor), load(to + i)));
    for (; i < n; ++i) to[i] = multiply_add(from[i], factor, to[i]);
}

template <class E>
LARQL_SIMD_FUNCTION void convert(const row_block& rows, std::size_t columns, float* to, std::size_t to_stride) {
    for (std::size_t j = 0; j < rows.rows; ++j, to += to_stride) {
        const auto* from = reinterpret_cast<const E*>(rows.data + static_cast<std::ptrdiff_t>(j) * rows.stride);
        std::size_t i = 0;
        for (; i + lanes <= columns; i += lanes) store(to + i, load_row(from, i));
        for (; i < columns; ++i) to[i] = number_in<float>(from, i);
        for (; i % lanes != 0; ++i) to[i] = 0.0F;
    }
}

}  // namespace larql::detail::LARQL_SIMD_NAMESPACE::attention

#endif
