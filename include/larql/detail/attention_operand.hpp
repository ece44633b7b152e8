// SPDX-License-Identifier: Apache-2.0
//
// From an xtensor expression to rows in memory: used in place where its last dimension is contiguous, else evaluated
// once into a container.
#ifndef LARQL_DETAIL_ATTENTION_OPERAND_HPP
#define LARQL_DETAIL_ATTENTION_OPERAND_HPP

#include <larql/detail/attention_problem.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>

#include <optional>
#include <string>
#include <type_traits>

namespace larql::detail {

template <class E>
using attention_element_t = std::remove_cv_t<typename std::decay_t<E>::value_type>;

template <class T>
inline constexpr bool is_attention_element =
    std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, bf16> || std::is_same_v<T, f16>;

/// double if any operand is double, else float.
template <class... E>
using attention_compute_t = std::conditional_t<(std::is_same_v<attention_element_t<E>, double> || ...), double, float>;

/// Sizes of an operand read as [tokens, heads, size].
struct operand_shape {
    std::size_t tokens = 0;
    std::size_t heads = 0;
    std::size_t size = 0;
};

inline std::string to_string(const operand_shape& s) {
    return '[' + std::to_string(s.tokens) + ", " + std::to_string(s.heads) + ", " + std::to_string(s.size) + ']';
}

/// Reads a shape of rank 3, or of rank 2 with the number of heads given (0 = not given).
template <class Shape>
operand_shape read_operand_shape(const Shape& shape, std::size_t heads, const char* name, const char* option) {
    const auto at = [&](std::size_t i) { return static_cast<std::size_t>(shape[i]); };
    if (shape.size() == 3) {
        if (heads != 0 && heads != at(1))
            fail(errc::shape_mismatch,
                 "has " + std::to_string(at(1)) + " heads, " + option + " says " + std::to_string(heads),
                 {.subject = name});
        return {at(0), at(1), at(2)};
    }
    if (shape.size() != 2)
        fail(errc::shape_mismatch,
             "has " + std::to_string(shape.size()) + " dimensions, expected 3, or 2 with the heads in the options",
             {.subject = name});
    if (heads == 0) fail(errc::shape_mismatch, std::string("of 2 dimensions needs ") + option, {.subject = name});
    if (at(1) % heads != 0)
        fail(errc::shape_mismatch,
             "has rows of " + std::to_string(at(1)) + " elements, not a multiple of " + option + " = " +
                 std::to_string(heads),
             {.subject = name});
    return {at(0), heads, at(1) / heads};
}

template <class E>
inline constexpr bool has_rows_in_memory = [] {
    if constexpr (xt::has_data_interface<std::decay_t<E>>::value)
        return xt::has_strides<std::decay_t<E>>::value;
    else
        return false;
}();

/// The rows of an expression in memory, or nothing if its last dimension is not contiguous.
template <class E>
auto find_rows(E&& e, const operand_shape& shape) {
    using element = std::remove_reference_t<decltype(*e.data())>;
    std::optional<attention_rows<element>> rows;
    const auto& strides = e.strides();
    const auto stride = [&](std::size_t i) { return static_cast<std::ptrdiff_t>(strides[i]); };
    const std::size_t last = strides.size() - 1;
    if (stride(last) != 1 && static_cast<std::size_t>(e.shape()[last]) > 1) return rows;
    element* data = e.data() + static_cast<std::ptrdiff_t>(e.data_offset());
    rows = attention_rows<element>{data, stride(0), last == 2 ? stride(1) : static_cast<std::ptrdiff_t>(shape.size)};
    return rows;
}

/// A read-only operand with elements of type T. Holds the copy if one had to be made, so it must not move.
template <class T>
class attention_operand {
public:
    template <class E>
    attention_operand(const E& e, const operand_shape& shape) {
        if constexpr (has_rows_in_memory<const E&> && std::is_same_v<attention_element_t<E>, T>) {
            if (const auto found = find_rows(e, shape)) {
                m_rows = *found;
                return;
            }
        }
        m_copy = xt::cast<T>(e);
        m_rows = {m_copy.data(), static_cast<std::ptrdiff_t>(shape.heads * shape.size),
                  static_cast<std::ptrdiff_t>(shape.size)};
    }
    attention_operand(const attention_operand&) = delete;
    attention_operand& operator=(const attention_operand&) = delete;

    [[nodiscard]] const attention_rows<const T>& rows() const noexcept { return m_rows; }

private:
    xt::xarray<T, xt::layout_type::row_major> m_copy{};
    attention_rows<const T> m_rows{};
};

}  // namespace larql::detail

#endif
