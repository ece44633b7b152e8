// SPDX-License-Identifier: Apache-2.0
//
// From an xtensor expression or a view of rows to rows in memory: used in place where the last dimension is contiguous,
// else evaluated once into a container.
#ifndef LARQL_DETAIL_ATTENTION_OPERAND_HPP
#define LARQL_DETAIL_ATTENTION_OPERAND_HPP

#include <larql/detail/attention/problem.hpp>
#include <larql/detail/attention/stored_element.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>
#include <larql/rows_view.hpp>

#include <cstddef>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

namespace larql::detail {

template <class E>
using attention_element_t = std::remove_cv_t<typename std::decay_t<E>::value_type>;

template <class T>
inline constexpr bool is_attention_element =
    std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, bf16> || std::is_same_v<T, f16> ||
    std::is_same_v<T, f8_e4m3> || std::is_same_v<T, q8_0_block>;

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
    return concat({'[', s.tokens, ", ", s.heads, ", ", s.size, ']'});
}

/// What read_operand_shape says of the extents of `rank` dimensions, of which the first three are given.
inline operand_shape read_operand_extents(std::size_t rank, const std::size_t (&extents)[3], std::size_t heads,
                                          const char* name, const char* option) {
    const auto refuse = [&](const std::string& problem) { fail(errc::shape_mismatch, problem, {.subject = name}); };
    if (rank == 3) {
        if (heads != 0 && heads != extents[1])
            refuse(concat({"has ", extents[1], " heads, ", option, " says ", heads}));
        return {extents[0], extents[1], extents[2]};
    }
    if (rank != 2) refuse(concat({"has ", rank, " dimensions, expected 3, or 2 with the heads in the options"}));
    if (heads == 0) refuse(std::string("of 2 dimensions needs ") + option);
    if (extents[1] % heads != 0)
        refuse(concat({"has rows of ", extents[1], " elements, not a multiple of ", option, " = ", heads}));
    return {extents[0], heads, extents[1] / heads};
}

/// Reads a shape of rank 3, or of rank 2 with the number of heads given (0 = not given).
template <class Shape>
operand_shape read_operand_shape(const Shape& shape, std::size_t heads, const char* name, const char* option) {
    std::size_t extents[3] = {};
    for (std::size_t i = 0; i < 3 && i < shape.size(); ++i) extents[i] = static_cast<std::size_t>(shape[i]);
    return read_operand_extents(shape.size(), extents, heads, name, option);
}

template <class E>
inline constexpr bool has_rows_in_memory = [] {
    if constexpr (is_rows_view<std::decay_t<E>>)
        return true;
    else if constexpr (xt::has_data_interface<std::decay_t<E>>::value)
        return xt::has_strides<std::decay_t<E>>::value;
    else
        return false;
}();

/// The rows of an expression in memory, or nothing if its last dimension is not contiguous.
template <class E>
auto find_rows(E&& e, const operand_shape& shape) {
    if constexpr (is_rows_view<std::decay_t<E>>) {
        return std::optional(rows_of(e, "out"));
    } else {
        using element = std::remove_reference_t<decltype(*e.data())>;
        std::optional<attention_rows<element>> rows;
        const auto& strides = e.strides();
        const auto stride = [&](std::size_t i) { return static_cast<std::ptrdiff_t>(strides[i]); };
        const std::size_t last = strides.size() - 1;
        if (stride(last) != 1 && static_cast<std::size_t>(e.shape()[last]) > 1) return rows;
        element* data = e.data() + static_cast<std::ptrdiff_t>(e.data_offset());
        rows = attention_rows<element>{
            data, stride(0), last == 2 ? stride(1) : static_cast<std::ptrdiff_t>(shape.size), {}};
        return rows;
    }
}

/// Copies elements that lie `element_stride` apart into rows without gaps.
template <class T, class E>
std::vector<T> gather_rows(const attention_rows<const E>& rows, std::ptrdiff_t element_stride,
                           const operand_shape& shape) {
    std::vector<T> out(shape.tokens * shape.heads * shape.size);
    T* to = out.data();
    for (std::size_t t = 0; t < shape.tokens; ++t)
        for (std::size_t h = 0; h < shape.heads; ++h) {
            const E* from = rows.row(t, h);
            if constexpr (is_block<E>)
                for (std::size_t d = 0; d < shape.size; ++d) *to++ = number_in<T>(from, d);
            else
                for (std::size_t d = 0; d < shape.size; ++d, from += element_stride) *to++ = static_cast<T>(*from);
        }
    return out;
}

/// A read-only operand with elements of type T. Holds the copy if one had to be made, so it must not move.
template <class T>
class attention_operand {
public:
    template <class E>
    attention_operand(const E& e, const operand_shape& shape, const char* name = "rows") {
        static_assert(is_rows_view<E> || !is_block<attention_element_t<E>>,
                      "larql: rows of larql::q8_0_block are given as a rows_view, whose size counts numbers");
        if constexpr (is_rows_view<E>)
            use_view(e, shape, name);
        else if constexpr (has_rows_in_memory<const E&>)
            use_memory(e, shape);
        else
            evaluate(e, shape);
    }
    attention_operand(const attention_operand&) = delete;
    attention_operand& operator=(const attention_operand&) = delete;

    [[nodiscard]] const attention_rows<const T>& rows() const noexcept { return m_rows; }

private:
    template <class E>
    void use_view(const rows_view<E>& e, const operand_shape& shape, const char* name) {
        const attention_rows<const std::remove_cv_t<E>> rows = rows_of(e.as_const(), name);
        if constexpr (std::is_same_v<std::remove_cv_t<E>, T>) {
            m_rows = rows;
        } else {
            m_copy = gather_rows<T>(rows, 1, shape);
            use_copy(shape);
        }
    }

    template <class E>
    void use_memory(const E& e, const operand_shape& shape) {
        const auto stride = [&](std::size_t i) { return static_cast<std::ptrdiff_t>(e.strides()[i]); };
        const std::size_t last = e.shape().size() - 1;
        attention_rows<const attention_element_t<E>> rows;
        rows.data = e.data() + static_cast<std::ptrdiff_t>(e.data_offset());
        rows.token_stride = stride(0);
        rows.head_stride = last == 2 ? stride(1) : stride(1) * static_cast<std::ptrdiff_t>(shape.size);
        if constexpr (std::is_same_v<attention_element_t<E>, T>)
            if (shape.size <= 1 || stride(last) == 1) {
                m_rows = rows;
                return;
            }
        m_copy = gather_rows<T>(rows, stride(last), shape);
        use_copy(shape);
    }

    template <class E>
    void evaluate(const E& e, const operand_shape& shape) {
        m_copy.resize(shape.tokens * shape.heads * shape.size);
        const std::vector<std::size_t> extents(e.shape().begin(), e.shape().end());
        auto copy = xt::adapt(m_copy.data(), m_copy.size(), xt::no_ownership(), extents);
        copy = xt::cast<T>(e);
        use_copy(shape);
    }

    void use_copy(const operand_shape& shape) noexcept {
        m_rows = {m_copy.data(),
                  static_cast<std::ptrdiff_t>(shape.heads * shape.size),
                  static_cast<std::ptrdiff_t>(shape.size),
                  {}};
    }

    std::vector<T> m_copy{};
    attention_rows<const T> m_rows{};
};

}  // namespace larql::detail

#endif
