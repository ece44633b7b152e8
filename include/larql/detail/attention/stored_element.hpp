// SPDX-License-Identifier: Apache-2.0
//
// What rows of keys and values are made of: numbers one by one, or blocks of numbers that share a scale. Strides of
// rows, and widths of memory, count such elements; sizes of heads count numbers.
#ifndef LARQL_DETAIL_ATTENTION_STORED_ELEMENT_HPP
#define LARQL_DETAIL_ATTENTION_STORED_ELEMENT_HPP

#include <larql/detail/concat.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>

#include <cstddef>
#include <string>
#include <type_traits>

namespace larql::detail {

/// Numbers that an element holds.
template <class E>
inline constexpr std::size_t element_numbers = 1;
template <>
inline constexpr std::size_t element_numbers<q8_0_block> = q8_0_block::elements;

template <class E>
inline constexpr bool is_block = element_numbers<std::remove_cv_t<E>> != 1;

/// Elements of a row of so many numbers.
template <class E>
constexpr std::size_t elements_of(std::size_t numbers) noexcept {
    return numbers / element_numbers<std::remove_cv_t<E>>;
}

/// @throws error errc::shape_mismatch for a row that is not whole elements
template <class E>
void require_whole_elements(std::size_t numbers, const char* subject) {
    constexpr std::size_t each = element_numbers<std::remove_cv_t<E>>;
    if (numbers % each != 0)
        fail(errc::shape_mismatch, concat({"rows of ", numbers, " numbers are not whole blocks of ", each}),
             {.subject = subject});
}

/// Number i of a row.
template <class T, class E>
T number_in(const E* row, std::size_t i) noexcept {
    if constexpr (is_block<E>) {
        const E& block = row[i / E::elements];  // the product is exact
        return static_cast<T>(static_cast<float>(block.scale) * static_cast<float>(block.codes[i % E::elements]));
    } else {
        return static_cast<T>(row[i]);
    }
}

}  // namespace larql::detail

#endif
