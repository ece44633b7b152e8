// SPDX-License-Identifier: Apache-2.0
//
// Attention of many query rows: lanes are query rows. Query rows are packed in panels [D][panel_rows]; a block of keys
// times a panel gives the scores as [keys][panel_rows], so that the softmax runs down the lanes without any
// reduction across them, keys are never transposed, and the weights lie as the second product wants them.
// Included once per level of vector code; see simd_body.hpp.
#ifdef LARQL_SIMD_NAMESPACE

namespace larql::detail::LARQL_SIMD_NAMESPACE {

/// Keys whose scores one tile of registers holds, rows and vectors of the result of the other.
#if LARQL_SIMD_BYTES == 64
inline constexpr std::size_t score_keys = 8, value_rows = 8, value_vectors = 2;
#else
inline constexpr std::size_t score_keys = 4, value_rows = 4, value_vectors = 2;
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
            LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) sum[j][i] += k * x[i];
        }
    }
    LARQL_UNROLL for (std::size_t j = 0; j < Keys; ++j) {
        LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) store(scores + j * width + i * lanes, sum[j][i]);
    }
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
            LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) sum[r][i] += w * x[i];
        }
    }
    LARQL_UNROLL for (std::size_t r = 0; r < Rows; ++r) {
        LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) store(out + r * out_stride + i * lanes, sum[r][i]);
    }
}

/// The rows of an item and what they have accumulated. `width` rows make a panel.
struct wide_rows {
    float* q;        // [panels][D][width], times the scale
    float* out;      // [panels * width][out_stride]
    float* maximum;  // [panels * width], in powers of two
    float* sum;
};

/// A block of keys and their values as floats, and what working on it needs.
struct wide_block {
    const float* keys;
    const float* values;
    std::size_t key_stride;
    std::size_t value_stride;
    key_range range;  // absolute
    float* scores;    // [attention_key_block][width]
    float* keep;      // [width]
};

/// scores of the keys [begin, end) of a block, against one panel.
template <std::size_t Vectors>
LARQL_SIMD_FUNCTION void score_panel(const wide_block& block, const float* q, std::size_t depth, std::size_t begin,
                                     std::size_t end) noexcept {
    constexpr std::size_t width = Vectors * lanes;
    constexpr std::size_t cached_depth = 256;  // this much of a panel stays in the first-level cache
    const std::size_t step = round_up(ceil_div(depth, ceil_div(depth, cached_depth)), 16);
    for (std::size_t d = 0; d < depth; d += step) {
        const std::size_t n = std::min(step, depth - d);
        const float* part = q + d * width;
        std::size_t j = begin;
        const auto* keys = block.keys + d;
        for (; j + score_keys <= end; j += score_keys)
            score_tile<score_keys, Vectors>(keys + j * block.key_stride, block.key_stride, part, n,
                                            block.scores + j * width, d > 0);
        for (; j < end; ++j)
            score_tile<1, Vectors>(keys + j * block.key_stride, block.key_stride, part, n, block.scores + j * width,
                                   d > 0);
    }
}

/// Soft cap, in place; scores come divided by the cap and leave in powers of two.
template <std::size_t Vectors>
LARQL_SIMD_FUNCTION void cap_scores(float* scores, std::size_t keys, float cap) noexcept {
    for (std::size_t i = 0; i < keys * Vectors; ++i) store(scores + i * lanes, tanh(load(scores + i * lanes)) * cap);
}

/// Scores of keys that a row does not see become -infinity. seen[r] is absolute; scores start at key `first`.
template <std::size_t Vectors>
LARQL_SIMD_FUNCTION void mask_scores(float* scores, const key_range* seen, std::size_t first,
                                     std::size_t keys) noexcept {
    constexpr std::size_t width = Vectors * lanes;
    std::int32_t begin[width];
    std::int32_t end[width];
    const auto relative = [&](std::size_t key) {
        return static_cast<std::int32_t>(std::clamp(key, first, first + keys) - first);
    };
    for (std::size_t r = 0; r < width; ++r) {
        begin[r] = relative(seen[r].begin);
        end[r] = relative(seen[r].end);
    }
    const vfloat hidden = broadcast(-std::numeric_limits<float>::infinity());
    for (std::size_t i = 0; i < Vectors; ++i) {
        const vint from = load(begin + i * lanes);
        const vint to = load(end + i * lanes);
        for (std::size_t j = 0; j < keys; ++j) {
            const vint key = broadcast(static_cast<std::int32_t>(j));
            float* at = scores + j * width + i * lanes;
            store(at, ((key >= from) & (key < to)) ? load(at) : hidden);
        }
    }
}

/// Scores become weights relative to the row's new maximum; `keep` gets the factor for what was relative to the old.
template <std::size_t Vectors>
LARQL_SIMD_FUNCTION void weigh_scores(float* scores, std::size_t keys, float* running_maximum, float* running_sum,
                                      float* keep) noexcept {
    constexpr std::size_t width = Vectors * lanes;
    for (std::size_t i = 0; i < Vectors; ++i) {
        float* column = scores + i * lanes;
        const vfloat before = load(running_maximum + i * lanes);
        vfloat top[4] = {before, before, before, before};  // four chains hide the latency
        std::size_t j = 0;
        for (; j + 4 <= keys; j += 4)
            LARQL_UNROLL for (std::size_t c = 0; c < 4; ++c) top[c] = maximum(load(column + (j + c) * width), top[c]);
        for (; j < keys; ++j) top[0] = maximum(load(column + j * width), top[0]);
        const vfloat after = maximum(maximum(top[0], top[1]), maximum(top[2], top[3]));
        const vfloat base = after == -std::numeric_limits<float>::infinity() ? vfloat{} : after;
        const vfloat factor = exp2_negative(before - base);
        vfloat sum{};
        for (j = 0; j < keys; ++j) {
            const vfloat weight = exp2_negative(load(column + j * width) - base);
            store(column + j * width, weight);
            sum += weight;
        }
        store(running_maximum + i * lanes, after);
        store(running_sum + i * lanes, load(running_sum + i * lanes) * factor + sum);
        store(keep + i * lanes, factor);
    }
}

/// Adds the weighted values of a block to `rows` rows from `row` on of a panel.
template <std::size_t Rows>
LARQL_SIMD_FUNCTION void add_values(const wide_block& block, std::size_t width, std::size_t row, key_range keys,
                                    float* out, std::size_t out_stride) noexcept {
    const float* weights = block.scores + keys.begin * width + row;
    const float* values = block.values + keys.begin * block.value_stride;
    const std::size_t n = keys.end - keys.begin;
    std::size_t c = 0;
    for (; c + value_vectors * lanes <= out_stride; c += value_vectors * lanes)
        value_tile<Rows, value_vectors>(weights, width, values + c, block.value_stride, n, block.keep + row,
                                        out + row * out_stride + c, out_stride);
    for (; c < out_stride; c += lanes)
        value_tile<Rows, 1>(weights, width, values + c, block.value_stride, n, block.keep + row,
                            out + row * out_stride + c, out_stride);
}

LARQL_SIMD_FUNCTION inline bool all_finite(const wide_block& block, key_range keys, std::size_t columns) noexcept {
    vfloat zero{};
    for (std::size_t j = keys.begin; j < keys.end; ++j)
        for (std::size_t c = 0; c < columns; c += lanes) zero += load(block.values + j * block.value_stride + c) * 0.0F;
    return sum_lanes(zero) == 0.0F;
}

/// One panel against one block of keys. `seen` has the keys of each row of the panel, `rows` of which are real.
template <std::size_t Vectors>
LARQL_SIMD_FUNCTION void attend_panel(const wide_block& block, const wide_rows& panel, const key_range* seen,
                                      std::size_t rows, std::size_t depth, float cap, std::size_t out_stride) noexcept {
    constexpr std::size_t width = Vectors * lanes;
    const std::size_t first = block.range.begin;
    const std::size_t from = std::max(seen[0].begin, first);
    const std::size_t to = std::min(seen[rows - 1].end, block.range.end);
    if (from >= to) return;
    const key_range keys{from - first, to - first};
    float* const scores = block.scores + keys.begin * width;
    const std::size_t n = to - from;
    score_panel<Vectors>(block, panel.q, depth, keys.begin, keys.end);
    if (cap > 0) cap_scores<Vectors>(scores, n, cap);
    const bool ragged = seen[rows - 1].begin > from || seen[0].end < to;
    if (ragged) mask_scores<Vectors>(scores, seen, from, n);
    weigh_scores<Vectors>(scores, n, panel.maximum, panel.sum, block.keep);
    if (ragged && !all_finite(block, keys, out_stride)) {
        // A weight of 0 does not silence a NaN: rows must not touch what they do not see.
        for (std::size_t r = 0; r < rows; ++r) {
            const std::size_t begin = std::clamp(seen[r].begin, from, to);
            const std::size_t end = std::clamp(seen[r].end, begin, to);
            add_values<1>(block, width, r, {begin - first, end - first}, panel.out, out_stride);
        }
        return;
    }
    for (std::size_t r = 0; r < rows; r += value_rows) {
        const std::size_t begin = std::max(seen[r].begin, from);
        const std::size_t end = std::min(seen[std::min(r + value_rows, rows) - 1].end, to);
        if (begin < end) add_values<value_rows>(block, width, r, {begin - first, end - first}, panel.out, out_stride);
    }
}

/// `lanes` rows times `factor`, transposed: element d of row i goes to to[d * width + i]. A null row is zero.
LARQL_SIMD_FUNCTION inline void pack_lanes(const float* const* rows, std::size_t depth, std::size_t width, float factor,
                                           float* to) noexcept {
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

/// Packs the rows of an item as panels, times `factor`; rows beyond the last are zero.
LARQL_SIMD_FUNCTION inline void pack_queries(const attention_call<float>& p, const attention_item& item,
                                             std::size_t width, float factor, float* q) noexcept {
    const std::size_t rows = item.row_end - item.row_begin;
    for (std::size_t i = 0; i < round_up(rows, width); i += lanes) {
        const float* from[lanes];
        for (std::size_t l = 0; l < lanes; ++l) {
            const std::size_t r = item.row_begin + i + l;
            from[l] = nullptr;
            if (i + l < rows) from[l] = p.q.row(r / p.group(), item.head_begin * p.group() + r % p.group());
        }
        pack_lanes(from, p.key_size, width, factor, q + i / width * width * p.key_size + i % width);
    }
}

/// Converts rows of keys or values; columns up to a whole vector become zero.
template <class E>
LARQL_SIMD_FUNCTION void convert_block(const attention_rows<const E>& rows, std::size_t head, key_range range,
                                       std::size_t columns, float* to, std::size_t stride) noexcept {
    for (std::size_t j = range.begin; j < range.end; ++j, to += stride) {
        convert_row(rows.row(j, head), columns, to);
        for (std::size_t c = columns; c < round_up(columns, lanes); ++c) to[c] = 0.0F;
    }
}

/// Divides the sums of the item's rows of one head by the sums of their weights.
LARQL_SIMD_FUNCTION inline void finish_rows(const attention_call<float>& p, const attention_item& item,
                                            std::size_t kv_head, const float* sums, std::size_t stride,
                                            const float* maximum, const float* sum) noexcept {
    for (std::size_t r = item.row_begin; r < item.row_end; ++r) {
        const std::size_t i = r - item.row_begin;
        const std::size_t head = kv_head * p.group() + r % p.group();
        const float factor = final_factor_base2(maximum[i], sum[i], p.sinks == nullptr ? nullptr : p.sinks + head);
        const float* from = sums + i * stride;
        float* to = p.out.row(r / p.group(), head);
        std::size_t c = 0;
        for (; c + lanes <= p.value_size; c += lanes) store(to + c, load(from + c) * factor);
        for (; c < p.value_size; ++c) to[c] = from[c] * factor;
    }
}

/// An item whose lanes are query rows.
template <class K, class V>
LARQL_SIMD_FUNCTION void attend_wide(const attention_problem<float, K, V>& p, const attention_plan& plan,
                                     const attention_item& item, float* scratch) noexcept {
    const std::size_t width = plan.panel_rows;
    const std::size_t rows = item.row_end - item.row_begin;
    const std::size_t padded = round_up(rows, width);
    float_arena arena(scratch);
    wide_rows all{arena.take(padded * p.key_size), arena.take(padded * plan.out_stride), arena.take(padded),
                  arena.take(padded)};
    if (item.partial != nullptr) {
        const attention_partial partial(plan, item.partial);
        all.out = partial.out;
        all.maximum = partial.maximum;
        all.sum = partial.sum;
    }
    const logit_factors factors = make_logit_factors(p.scale, p.softcap);
    pack_queries(p, item, width, factors.query, all.q);
    std::fill_n(all.out, padded * plan.out_stride, 0.0F);
    std::fill_n(all.maximum, padded, -std::numeric_limits<float>::infinity());
    std::fill_n(all.sum, padded, 0.0F);

    float* const keys = arena.take(attention_key_block * plan.key_stride);
    float* const values = p.v_is_k ? keys : arena.take(attention_key_block * plan.value_stride);
    wide_block block{keys,
                     values,
                     plan.key_stride,
                     p.v_is_k ? plan.key_stride : plan.value_stride,
                     {},
                     arena.take(attention_key_block * width),
                     arena.take(width)};
    const std::size_t end = std::min(item.keys.end, p.mask.visible((item.row_end - 1) / p.group()).end);
    std::size_t first = std::max(item.keys.begin, p.mask.visible(item.row_begin / p.group()).begin);
    first -= (first - plan.first_key) % attention_key_block;  // the same blocks whatever the rows
    for (; first < end; first += attention_key_block) {
        block.range = {first, std::min(first + attention_key_block, end)};
        convert_block(p.k, item.head_begin, block.range, p.key_size, keys, block.key_stride);
        if (!p.v_is_k) convert_block(p.v, item.head_begin, block.range, p.value_size, values, block.value_stride);
        for (std::size_t i = 0; i < rows; i += width) {
            const std::size_t real = std::min(width, rows - i);
            key_range seen[2 * lanes];
            for (std::size_t r = 0; r < width; ++r)
                seen[r] = p.mask.visible((item.row_begin + i + std::min(r, real - 1)) / p.group());
            const wide_rows panel{all.q + i * p.key_size, all.out + i * plan.out_stride, all.maximum + i, all.sum + i};
            const auto attend = width == lanes ? attend_panel<1> : attend_panel<2>;
            attend(block, panel, seen, real, p.key_size, factors.cap, plan.out_stride);
        }
    }
    if (item.partial == nullptr) finish_rows(p, item, item.head_begin, all.out, plan.out_stride, all.maximum, all.sum);
}

}  // namespace larql::detail::LARQL_SIMD_NAMESPACE

#endif
