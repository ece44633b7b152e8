// SPDX-License-Identifier: Apache-2.0
//
// Rotary position embedding: frequencies of every scaling kind, rotation in both pairings, and the reordering of weight
// rows from one pairing to the other. Angles are computed in double, whatever the element type.
#ifndef LARQL_ROPE_HPP
#define LARQL_ROPE_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/error.hpp>
#include <larql/rope_config.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace larql {

/// Frequencies of a rotary embedding, ready to rotate with.
struct rope_table {
    std::vector<double> frequencies;  ///< [D/2], radians per token; negative if heads turn backwards
    double magnitude = 1.0;           ///< multiplies cos and sin (transformers' attention_factor)

    [[nodiscard]] std::size_t rotary_dim() const noexcept { return 2 * frequencies.size(); }
};

/// YaRN's magnitude term: 0.1 * mscale * ln(factor) + 1, or 1 when the context is not extended.
/// @source arXiv 2309.00071 section 3.4; transformers modeling_rope_utils.py
inline double yarn_mscale(double factor, double mscale = 1.0) noexcept {
    return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

/// The factor m that DeepSeek's models apply twice to the softmax scale: scale = d^-1/2 * m * m. It is 1 unless the
/// embedding is scaled and mscale_all_dim is set.
inline double attention_mscale(const rope_config& rope) noexcept {
    if (rope.kind == rope_kind::standard || !rope.mscale_all_dim || *rope.mscale_all_dim == 0.0) return 1.0;
    return yarn_mscale(rope.factor, *rope.mscale_all_dim);
}

namespace detail {

inline void require_positive(double value, const char* name) {
    if (!(value > 0.0) || !std::isfinite(value))
        fail(errc::bad_value, concat({"expected a finite number above 0, got ", value}), {.subject = name});
}

inline const std::vector<double>& require_factors(const std::vector<double>& factors, std::size_t half,
                                                  const char* name) {
    if (factors.size() != half)
        fail(errc::shape_mismatch, concat({"expected rotary_dim/2 = ", half, " numbers, got ", factors.size()}),
             {.subject = name});
    for (const double f : factors) require_positive(f, name);
    return factors;
}

inline void scale_yarn(const rope_config& rope, rope_table& table) {
    const auto dim = static_cast<double>(rope.rotary_dim);
    require_positive(rope.original_max_position, "rope.original_max_position_embeddings");
    require_positive(rope.factor, "rope.factor");
    require_positive(rope.beta_fast, "rope.beta_fast");
    require_positive(rope.beta_slow, "rope.beta_slow");
    // The pair whose wave turns `rotations` times over the original context.
    const auto pair_of = [&](double rotations) {
        return dim * std::log(rope.original_max_position / (rotations * 2.0 * std::numbers::pi)) /
               (2.0 * std::log(rope.theta));
    };
    double low = pair_of(rope.beta_fast);
    double high = pair_of(rope.beta_slow);
    if (rope.truncate) {
        low = std::floor(low);
        high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, dim - 1.0);
    if (low == high) high += 0.001;
    for (std::size_t j = 0; j < table.frequencies.size(); ++j) {
        const double ramp = std::clamp((static_cast<double>(j) - low) / (high - low), 0.0, 1.0);
        double& w = table.frequencies[j];
        w = w / rope.factor * ramp + w * (1.0 - ramp);
    }
    if (rope.attention_factor) {
        table.magnitude = *rope.attention_factor;
    } else if (rope.mscale && rope.mscale_all_dim && *rope.mscale != 0.0 && *rope.mscale_all_dim != 0.0) {
        table.magnitude = yarn_mscale(rope.factor, *rope.mscale) / yarn_mscale(rope.factor, *rope.mscale_all_dim);
    } else {
        table.magnitude = yarn_mscale(rope.factor);
    }
}

inline void scale_longrope(const rope_config& rope, double sequence_length, rope_table& table) {
    require_positive(rope.original_max_position, "rope.original_max_position_embeddings");
    const bool is_long = sequence_length > rope.original_max_position;
    const std::vector<double>& factors =
        require_factors(is_long ? rope.long_factor : rope.short_factor, table.frequencies.size(),
                        is_long ? "rope.long_factor" : "rope.short_factor");
    for (std::size_t j = 0; j < factors.size(); ++j) table.frequencies[j] /= factors[j];
    if (const std::optional<double>& stated = is_long ? rope.long_magnitude : rope.short_magnitude)
        table.magnitude = *stated;
    else if (rope.attention_factor)
        table.magnitude = *rope.attention_factor;
    else if (rope.factor > 1.0)
        table.magnitude = std::sqrt(1.0 + std::log(rope.factor) / std::log(rope.original_max_position));
}

inline void scale_llama3(const rope_config& rope, rope_table& table) {
    require_positive(rope.original_max_position, "rope.original_max_position_embeddings");
    require_positive(rope.factor, "rope.factor");
    if (!(rope.high_freq_factor > rope.low_freq_factor) || !(rope.low_freq_factor > 0.0))
        fail(errc::bad_value,
             concat({"expected 0 < low_freq_factor < high_freq_factor, got ", rope.low_freq_factor, " and ",
                     rope.high_freq_factor}),
             {.subject = "rope"});
    for (double& w : table.frequencies) {
        const double wavelength = 2.0 * std::numbers::pi / w;
        if (wavelength < rope.original_max_position / rope.high_freq_factor) continue;
        if (wavelength > rope.original_max_position / rope.low_freq_factor) {
            w /= rope.factor;
            continue;
        }
        const double smooth = (rope.original_max_position / wavelength - rope.low_freq_factor) /
                              (rope.high_freq_factor - rope.low_freq_factor);
        w = (1.0 - smooth) * w / rope.factor + smooth * w;
    }
}

/// The base of the `dynamic` kind for a sequence of this length.
inline double dynamic_theta(const rope_config& rope, double sequence_length) {
    const auto dim = static_cast<double>(rope.rotary_dim);
    if (rope.rotary_dim <= 2) return rope.theta;  // a single pair: its frequency is 1 for every base
    const double exponent = dim / (dim - 2.0);
    if (rope.alpha) {
        require_positive(*rope.alpha, "rope.alpha");
        return rope.theta * std::pow(*rope.alpha, exponent);
    }
    require_positive(rope.max_position, "max_position_embeddings");
    if (rope.doubling) {
        const double doublings = std::ceil(std::log2(std::max(sequence_length, rope.max_position) / rope.max_position));
        return rope.theta * std::pow(std::exp2(doublings + 1.0) - 1.0, exponent);
    }
    require_positive(rope.factor, "rope.factor");
    const double length = std::max(sequence_length, rope.max_position);
    return rope.theta * std::pow(rope.factor * length / rope.max_position - (rope.factor - 1.0), exponent);
}

/// Parameters that are finite and positive one by one may still give a table that is not, or none to rotate with: an
/// angle is a frequency times any position, in double, and the magnitude multiplies in float.
inline void require_usable(const rope_table& table) {
    constexpr double most_frequency = 1e200, least_magnitude = 1e-30, most_magnitude = 1e30;
    const auto good = [](double w) { return w >= 0.0 && w <= most_frequency; };
    const auto bad = std::ranges::find_if_not(table.frequencies, good);
    if (bad != table.frequencies.end())
        fail(errc::bad_value,
             concat({"these parameters give frequency ", bad - table.frequencies.begin(), " as ", *bad}),
             {.subject = "rope"});
    if (!(table.magnitude >= least_magnitude && table.magnitude <= most_magnitude))
        fail(errc::bad_value, concat({"these parameters give a magnitude of ", table.magnitude}), {.subject = "rope"});
}

}  // namespace detail

/// The frequencies of an embedding.
///
/// @param rope             its description
/// @param sequence_length  tokens in the whole sequence; matters only for `dynamic` and `longrope`
/// @return                 rotary_dim / 2 frequencies and the magnitude of cos and sin
/// @throws error errc::bad_value for an odd rotary_dim, or a parameter that is not finite and positive;
///               errc::shape_mismatch for a list of factors of the wrong length
/// @source transformers modeling_rope_utils.py (every kind), modeling_mistral_large4.py (multipliers); ggml.c
///         ggml_rope_yarn_corr_dims (the same ramp)
inline rope_table make_rope_table(const rope_config& rope, double sequence_length = 0.0) {
    if (rope.rotary_dim % 2 != 0)
        detail::fail(errc::bad_value,
                     detail::concat({"expected an even number of rotated elements, got ", rope.rotary_dim}),
                     {.subject = "rope.rotary_dim"});
    rope_table table;
    if (rope.rotary_dim == 0) return table;
    detail::require_positive(rope.theta, "rope.theta");
    const auto dim = static_cast<double>(rope.rotary_dim);
    const double theta = rope.kind == rope_kind::dynamic ? detail::dynamic_theta(rope, sequence_length) : rope.theta;
    table.frequencies.resize(rope.rotary_dim / 2);
    for (std::size_t j = 0; j < table.frequencies.size(); ++j)
        table.frequencies[j] = std::pow(theta, -2.0 * static_cast<double>(j) / dim);

    switch (rope.kind) {
        case rope_kind::standard:
        case rope_kind::dynamic: break;
        case rope_kind::linear:
            detail::require_positive(rope.factor, "rope.factor");
            for (double& w : table.frequencies) w /= rope.factor;
            break;
        case rope_kind::yarn: detail::scale_yarn(rope, table); break;
        case rope_kind::longrope: detail::scale_longrope(rope, sequence_length, table); break;
        case rope_kind::llama3: detail::scale_llama3(rope, table); break;
        case rope_kind::proportional: {
            detail::require_positive(rope.factor, "rope.factor");
            if (!(rope.partial_rotary_factor >= 0.0 && rope.partial_rotary_factor <= 1.0))
                detail::fail(errc::bad_value, detail::concat({"expected 0 to 1, got ", rope.partial_rotary_factor}),
                             {.subject = "rope.partial_rotary_factor"});
            const auto rotated = static_cast<std::size_t>(rope.partial_rotary_factor * dim / 2.0);
            for (std::size_t j = 0; j < table.frequencies.size(); ++j)
                table.frequencies[j] = j < rotated ? table.frequencies[j] / rope.factor : 0.0;
            break;
        }
        case rope_kind::divisors: {
            const auto& divisors = detail::require_factors(rope.divisors, table.frequencies.size(), "rope.divisors");
            for (std::size_t j = 0; j < divisors.size(); ++j) table.frequencies[j] /= divisors[j];
            break;
        }
    }
    if (!rope.multipliers.empty()) {
        const auto& factors = detail::require_factors(rope.multipliers, table.frequencies.size(), "rope.multipliers");
        for (std::size_t j = 0; j < factors.size(); ++j) table.frequencies[j] *= factors[j];
    }
    table.magnitude *= rope.magnitude_factor;
    detail::require_usable(table);
    if (rope.backwards)
        for (double& w : table.frequencies) w = -w;
    return table;
}

namespace detail {

/// Rotates a part of the heads of one token, in place: that of head h begins at x + h * stride.
template <class T>
void apply_rope(T* x, std::size_t heads, std::size_t stride, const rope_table& table, rope_pairing pairing,
                std::size_t position) {
    const std::size_t half = table.frequencies.size();
    if (pairing == rope_pairing::none) return;
    const std::size_t step = pairing == rope_pairing::interleaved ? 2 : 1;         // from one pair to the next
    const std::size_t distance = pairing == rope_pairing::interleaved ? 1 : half;  // within a pair
    constexpr std::size_t at_once = 64;                                            // frequencies
    T cosine[at_once], sine[at_once];
    for (std::size_t begin = 0; begin < half; begin += at_once) {
        const std::size_t count = std::min(at_once, half - begin);
        for (std::size_t j = 0; j < count; ++j) {
            const double angle = static_cast<double>(position) * table.frequencies[begin + j];
            cosine[j] = static_cast<T>(std::cos(angle) * table.magnitude);
            sine[j] = static_cast<T>(std::sin(angle) * table.magnitude);
        }
        for (std::size_t h = 0; h < heads; ++h) {
            T* const pairs = x + h * stride + begin * step;
            for (std::size_t j = 0; j < count; ++j) {
                T& a = pairs[j * step];
                T& b = pairs[j * step + distance];
                const T first = a;
                a = first * cosine[j] - b * sine[j];
                b = first * sine[j] + b * cosine[j];
            }
        }
    }
}

/// Where tokens stand, and the frequencies that rotate them.
struct token_places {
    std::span<const std::size_t> positions{};     ///< of each token; empty: they follow each other
    std::size_t first = 0;                        ///< position of token 0, where there is no list
    std::span<const rope_table* const> tables{};  ///< of each token; empty: one table for all

    [[nodiscard]] std::size_t operator[](std::size_t token) const noexcept {
        return positions.empty() ? first + token : positions[token];
    }
    [[nodiscard]] const rope_table& table(std::size_t token, const rope_table& all) const noexcept {
        return tables.empty() ? all : *tables[token];
    }
};

template <class T>
void apply_rope(tensor<T, 3>& x, std::size_t rope_begin, const rope_table& table, rope_pairing pairing,
                const token_places& at) {
    const std::size_t tokens = x.shape(0), heads = x.shape(1), head_dim = x.shape(2), half = table.frequencies.size();
    if (pairing == rope_pairing::none || half == 0) return;
    if (rope_begin > head_dim || 2 * half > head_dim - rope_begin)
        fail(errc::shape_mismatch,
             concat({"rotated elements end at ", rope_begin + 2 * half, ", the head has ", head_dim}),
             {.subject = "apply_rope"});
    for (std::size_t t = 0; t < tokens; ++t)
        apply_rope(x.data() + t * heads * head_dim + rope_begin, heads, head_dim, at.table(t, table), pairing, at[t]);
}

}  // namespace detail

/// Rotates a part of every head, in place.
///
/// @param x               [T, H, D]  float or double; row t is the token at first_position + t
/// @param rope_begin      first rotated element of each head
/// @param table           frequencies of R = table.rotary_dim() elements; R = 0 leaves x as it is
/// @param pairing         which elements rotate together; `none` leaves x as it is
/// @param first_position  position of row 0, in tokens from 0
/// @throws error errc::shape_mismatch if rope_begin + R > D
/// @note   Angles, sines and cosines are computed in double, once per token and frequency.
template <class T>
void apply_rope(tensor<T, 3>& x, std::size_t rope_begin, const rope_table& table, rope_pairing pairing,
                std::size_t first_position = 0) {
    detail::apply_rope(x, rope_begin, table, pairing, detail::token_places{.first = first_position});
}

/// The same for tokens at any positions, in any order: of several sequences, or of a tree.
///
/// @param positions  [T]
/// @throws error errc::shape_mismatch also for another number of positions
template <class T>
void apply_rope(tensor<T, 3>& x, std::size_t rope_begin, const rope_table& table, rope_pairing pairing,
                std::span<const std::size_t> positions) {
    if (positions.size() != x.shape(0))
        detail::fail(errc::shape_mismatch,
                     detail::concat({positions.size(), " positions, x has ", x.shape(0), " tokens"}),
                     {.subject = "apply_rope"});
    detail::apply_rope(x, rope_begin, table, pairing, detail::token_places{.positions = positions});
}

/// The order that turns the rotated rows of a weight from one pairing into another.
///
/// @return  [dim] indices: new row i is old row result[i]. Rotating new rows with pairing `to` gives the elements that
///          rotating old rows with `from` gives, in the new order. `none` on either side keeps the order.
/// @throws error errc::bad_value for an odd dim
inline std::vector<std::size_t> rope_row_order(std::size_t dim, rope_pairing from, rope_pairing to) {
    if (dim % 2 != 0)
        detail::fail(errc::bad_value, detail::concat({"expected an even number of rotated rows, got ", dim}),
                     {.subject = "rope_row_order"});
    std::vector<std::size_t> order(dim);
    for (std::size_t i = 0; i < dim; ++i) {
        if (from == to || from == rope_pairing::none || to == rope_pairing::none)
            order[i] = i;
        else if (from == rope_pairing::interleaved)  // evens, then odds
            order[i] = i < dim / 2 ? 2 * i : 2 * (i - dim / 2) + 1;
        else
            order[i] = i % 2 == 0 ? i / 2 : dim / 2 + i / 2;
    }
    return order;
}

/// Reorders the rotated rows of every head of a projection from one pairing to another.
///
/// @param weight      [heads * head_dim, columns]; a bias may be passed as [heads * head_dim, 1]
/// @param head_dim    rows of a head
/// @param rope_begin  first rotated row within a head
/// @param rope_dim    number of rotated rows, even
/// @return            a new matrix of the same shape
/// @throws error errc::shape_mismatch if the rows are not a multiple of head_dim, or the rotated rows leave the head
template <class T>
tensor<T, 2> permute_rope_rows(const tensor<T, 2>& weight, std::size_t head_dim, std::size_t rope_begin,
                               std::size_t rope_dim, rope_pairing from, rope_pairing to) {
    const std::size_t rows = weight.shape(0), columns = weight.shape(1);
    if (head_dim == 0 || rows % head_dim != 0)
        detail::fail(errc::shape_mismatch, detail::concat({"expected a multiple of ", head_dim, " rows, got ", rows}),
                     {.subject = "permute_rope_rows"});
    if (rope_begin > head_dim || rope_dim > head_dim - rope_begin)
        detail::fail(errc::shape_mismatch,
                     detail::concat({"rotated rows end at ", rope_begin + rope_dim, ", the head has ", head_dim}),
                     {.subject = "permute_rope_rows"});
    const std::vector<std::size_t> order = rope_row_order(rope_dim, from, to);
    tensor<T, 2> result = weight;
    for (std::size_t head = 0; head < rows; head += head_dim)
        for (std::size_t i = 0; i < rope_dim; ++i) {
            const T* const source = weight.data() + (head + rope_begin + order[i]) * columns;
            std::copy(source, source + columns, result.data() + (head + rope_begin + i) * columns);
        }
    return result;
}

}  // namespace larql

#endif
