// SPDX-License-Identifier: Apache-2.0
//
// Attention over some of the keys, to be joined with that over the others: of a prefix that sequences share, of pages
// on several machines, of a ring of devices.
#ifndef LARQL_ATTENTION_PART_HPP
#define LARQL_ATTENTION_PART_HPP

#include <larql/detail/xtensor.hpp>
#include <larql/error.hpp>
#include <larql/gqa_attention.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string>

namespace larql {

/// What T tokens of H heads saw among some of their keys. T is the type of the arithmetic.
template <class T>
struct attention_part {
    tensor<T, 3> output = tensor<T, 3>::from_shape({0, 0, 0});  ///< [T, H, V], as if these were all keys
    /// [T, H]: the natural logarithm of the sum of exp(score), a sink's logit among the scores; -infinity where a token
    /// saw no key.
    tensor<T, 2> log_sum = tensor<T, 2>::from_shape({0, 0});
};

/// gqa_attention_asym with the logarithm of each row's sum of exponentials.
///
/// Of parts that are to be joined, give `sinks` to one alone: the sum holds them. Positions are those of the options:
/// part i of a causal sequence takes `first_key_position`, that of its first key, and `first_position`.
///
/// @throws error as gqa_attention_asym
template <class Q, class K, class V>
auto gqa_attention_part(const Q& q, const K& k, const V& v, const attention_options& options = {})
    -> attention_part<detail::attention_compute_t<Q, K, V>> {
    using compute = detail::attention_compute_t<Q, K, V>;
    const detail::attention_shapes shapes = detail::read_attention_shapes(q, k, v, options);
    attention_part<compute> part;
    part.log_sum = tensor<compute, 2>::from_shape({shapes.q.tokens, shapes.q.heads});
    attention_scratch scratch;
    part.output = detail::attend_to_tensor<compute>(q, k, v, shapes, options, scratch, detail::active_simd_level(),
                                                    part.log_sum.data());
    return part;
}

/// Joins what the same tokens saw among different keys: the attention over all of these keys, and its logarithm, so
/// that what was joined can be joined again.
///
/// @param parts  one or more, of the same shape; the order changes nothing but the last bits
/// @return       rows that saw no key in any part are zero
/// @throws error errc::shape_mismatch if shapes differ or there is no part
/// @source arXiv 2501.01005 section 2.2 (attention states and their composition)
template <class T>
[[nodiscard]] attention_part<T> join_attention(std::span<const attention_part<T>> parts) {
    if (parts.empty()) detail::fail(errc::shape_mismatch, "expected at least one part", {.subject = "join_attention"});
    for (const attention_part<T>& part : parts)
        if (part.output.shape() != parts[0].output.shape() || part.log_sum.shape(0) != part.output.shape(0) ||
            part.log_sum.shape(1) != part.output.shape(1))
            detail::fail(errc::shape_mismatch, "parts are of different shapes", {.subject = "join_attention"});
    attention_part<T> joined{tensor<T, 3>::from_shape(parts[0].output.shape()),
                             tensor<T, 2>::from_shape(parts[0].log_sum.shape())};
    const std::size_t size = joined.output.shape(2);
    for (std::size_t i = 0; i < joined.log_sum.size(); ++i) {
        T top = -std::numeric_limits<T>::infinity();
        for (const attention_part<T>& part : parts)
            if (!(part.log_sum.data()[i] <= top)) top = part.log_sum.data()[i];  // takes a NaN, and keeps it
        T* const out = joined.output.data() + i * size;
        std::fill_n(out, size, T(0));
        joined.log_sum.data()[i] = top;
        if (top == -std::numeric_limits<T>::infinity()) continue;
        T sum = 0;
        for (const attention_part<T>& part : parts) sum += std::exp(part.log_sum.data()[i] - top);
        for (const attention_part<T>& part : parts) {
            const T weight = std::exp(part.log_sum.data()[i] - top) / sum;
            if (weight == T(0)) continue;
            for (std::size_t c = 0; c < size; ++c) out[c] += weight * part.output.data()[i * size + c];
        }
        joined.log_sum.data()[i] = top + std::log(sum);
    }
    return joined;
}

}  // namespace larql

#endif
