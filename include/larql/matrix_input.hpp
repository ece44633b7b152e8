// SPDX-License-Identifier: Apache-2.0
//
// How weights enter larql's functions: as any xtensor expression, seen without a copy where it lies in memory, or as a
// reader that decodes rows on demand, so that a quantised tensor of a file never exists as a whole float matrix.
#ifndef LARQL_MATRIX_INPUT_HPP
#define LARQL_MATRIX_INPUT_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/gemm.hpp>
#include <larql/detail/gemm/stored_matrix.hpp>
#include <larql/detail/ggml/convert.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace larql {

namespace detail {

template <class E>
concept array_expression = xt::is_xexpression<std::remove_cvref_t<E>>::value;

/// An expression whose elements lie in memory at fixed strides: containers, adaptors and strided views of them.
template <class E>
concept strided_expression = array_expression<E> && xt::has_data_interface<std::remove_cvref_t<E>>::value &&
                             requires(const std::remove_cvref_t<E>& e) {
                                 e.strides();
                                 e.data_offset();
                             };

/// Whether elements outlive an expression that ends: it refers to a container or to memory that somebody else owns.
/// Views and adaptors of xtensor hold what they are made of as `X&` if that had a name, and as `X` if it was a
/// temporary. Of a type that is not known here, elements are taken to end with it.
template <class E>
inline constexpr bool elements_outlive = false;
template <class E>
inline constexpr bool elements_outlive<E&> = true;
template <class E>
inline constexpr bool elements_outlive<const E> = elements_outlive<E>;
template <class CT, class... S>
inline constexpr bool elements_outlive<xt::xview<CT, S...>> = elements_outlive<CT>;
template <class CT, class S, xt::layout_type L, class FST>
inline constexpr bool elements_outlive<xt::xstrided_view<CT, S, L, FST>> = elements_outlive<CT>;
template <class EC, std::size_t N, xt::layout_type L, class Tag>
inline constexpr bool elements_outlive<xt::xtensor_adaptor<EC, N, L, Tag>> = elements_outlive<EC>;
template <class EC, std::size_t N, xt::layout_type L, class Tag>
inline constexpr bool elements_outlive<xt::xtensor_view<EC, N, L, Tag>> = elements_outlive<EC>;
template <class EC, xt::layout_type L, class SC, class Tag>
inline constexpr bool elements_outlive<xt::xarray_adaptor<EC, L, SC, Tag>> = elements_outlive<EC>;
template <class P, class T>  // with a smart pointer in the place of the allocator it owns
inline constexpr bool elements_outlive<xt::xbuffer_adaptor<P, xt::no_ownership, std::allocator<T>>> = true;

/// What keeps the elements of an expression: a container itself, for anything else one of any rank, since the rank is
/// checked when it runs.
template <class E>
struct element_owner {
    using type = xt::xarray<typename E::value_type, xt::layout_type::row_major>;
};
template <class EC, std::size_t N, xt::layout_type L, class Tag>
struct element_owner<xt::xtensor_container<EC, N, L, Tag>> {
    using type = xt::xtensor_container<EC, N, L, Tag>;
};
template <class EC, xt::layout_type L, class SC, class Tag>
struct element_owner<xt::xarray_container<EC, L, SC, Tag>> {
    using type = xt::xarray_container<EC, L, SC, Tag>;
};

/// Elements in memory at fixed strides, and how to read rows of them as T.
template <class T>
struct strided_elements {
    const void* data = nullptr;
    std::ptrdiff_t row_stride = 0;  ///< in elements
    std::ptrdiff_t col_stride = 0;
    void (*read)(const strided_elements&, std::size_t cols, std::size_t begin, std::size_t end, T* out,
                 std::size_t stride) = nullptr;
};

/// Reads rows of U as T.
template <class T, class U>
void read_strided(const strided_elements<T>& from, std::size_t cols, std::size_t begin, std::size_t end, T* out,
                  std::size_t stride) {
    for (std::size_t r = begin; r < end; ++r, out += stride) {
        const U* row = static_cast<const U*>(from.data) + static_cast<std::ptrdiff_t>(r) * from.row_stride;
        constexpr bool halves = std::is_same_v<U, bf16> || std::is_same_v<U, f16>;
        if constexpr (halves && std::is_same_v<T, float>) {
            if (from.col_stride == 1) {
                const auto convert = std::is_same_v<U, bf16> ? convert_bf16 : convert_f16;
                convert(reinterpret_cast<const std::byte*>(row), out, cols, active_simd_level());
                continue;
            }
        }
        for (std::size_t c = 0; c < cols; ++c)
            out[c] = static_cast<T>(row[static_cast<std::ptrdiff_t>(c) * from.col_stride]);
    }
}

inline void require_rank(std::size_t got, std::size_t wanted, std::string_view what) {
    if (got != wanted)
        fail(errc::shape_mismatch, concat({"expected ", wanted, " dimensions, got ", got}),
             {.subject = std::string(what)});
}

}  // namespace detail

/// A matrix argument [rows, cols] of element type T.
///
/// What has a name is seen where it lies, and must outlive this object: a container, an adaptor over memory, a strided
/// view. A temporary does not outlive the statement, so what it owns is kept: a container is moved in (copied if
/// const), and a view of a temporary container, an adaptor that owns its memory and lazy arithmetic are evaluated
/// once. A temporary adaptor of a pointer or a named container, or a view of something named, owns no elements, which
/// are seen where they lie and must outlive this object. Elements of another type than T (bf16, f16, double) are
/// converted as rows are read.
template <class T>
class matrix_input {
public:
    /// Writes rows [begin, end) to out, out + stride, ...; called from several threads at once, in any order.
    using row_reader = std::function<void(std::size_t begin, std::size_t end, T* out, std::size_t stride)>;

    /// No matrix.
    matrix_input() = default;

    /// @throws error errc::shape_mismatch if the expression is not of rank 2
    template <detail::array_expression E>
    matrix_input(E&& expression) {  // NOLINT(google-explicit-constructor): a parameter type
        detail::require_rank(expression.dimension(), 2, "matrix_input");
        if constexpr (!detail::strided_expression<E>) {
            keep(tensor<T, 2>(expression));
        } else if constexpr (detail::elements_outlive<E>) {
            view(expression);
        } else {
            keep(typename detail::element_owner<std::remove_cvref_t<E>>::type(std::forward<E>(expression)));
        }
    }

    /// A matrix that the argument owns from here on.
    matrix_input(tensor<T, 2>&& owned) {  // NOLINT(google-explicit-constructor): a parameter type
        keep(std::move(owned));
    }

    /// Rows that a reader makes.
    matrix_input(std::size_t rows, std::size_t cols, row_reader reader)
        : m_rows(rows), m_cols(cols), m_reader{.rows = std::move(reader)} {}

    /// Rows that a reader makes of what is stored in memory, from which products of few rows compute.
    /// @param owner  keeps that memory
    matrix_input(std::size_t rows, std::size_t cols, row_reader reader, const detail::stored_matrix& stored,
                 std::shared_ptr<const void> owner)
        : m_rows(rows),
          m_cols(cols),
          m_reader{.rows = std::move(reader)},
          m_stored(stored),
          m_owner(std::move(owner)) {}

    [[nodiscard]] bool empty() const noexcept { return !m_reader.rows && m_reader.elements.read == nullptr; }
    [[nodiscard]] std::size_t rows() const noexcept { return m_rows; }
    [[nodiscard]] std::size_t cols() const noexcept { return m_cols; }

    /// Rows [begin, end) into out, out + stride, ...
    void read_rows(std::size_t begin, std::size_t end, T* out, std::size_t stride) const {
        m_reader(begin, end, out, stride);
    }

    /// All rows, as a new tensor.
    [[nodiscard]] tensor<T, 2> to_tensor() const {
        auto result = tensor<T, 2>::from_shape({m_rows, m_cols});
        if (m_rows != 0) m_reader(0, m_rows, result.data(), m_cols);
        return result;
    }

    /// Some of the rows, as a matrix that refers to this one's elements or reader.
    [[nodiscard]] matrix_input row_range(std::size_t begin, std::size_t end) const {
        matrix_input part;
        part.m_rows = end - begin;
        part.m_cols = m_cols;
        part.m_owner = m_owner;
        part.m_reader = m_reader;
        part.m_reader.first_row += begin;
        part.m_reader.cols = m_cols;
        part.m_stored = m_stored.from_row(begin);
        if (m_data != nullptr) part.m_data = m_data + begin * m_row_stride;
        part.m_row_stride = m_row_stride;
        return part;
    }

    /// The form in which matrix products read it; refers to this object.
    [[nodiscard]] detail::matrix_source<T> source() const& {
        return {m_rows, m_cols, m_reader, m_data, m_row_stride, m_stored};
    }
    detail::matrix_source<T> source() const&& = delete;

private:
    struct reader_from {
        row_reader rows{};
        detail::strided_elements<T> elements{};  ///< where there is no reader
        std::size_t first_row = 0;
        std::size_t cols = 0;  ///< of the elements

        void operator()(std::size_t begin, std::size_t end, T* out, std::size_t stride) const {
            if (rows)
                rows(first_row + begin, first_row + end, out, stride);
            else
                elements.read(elements, cols, first_row + begin, first_row + end, out, stride);
        }
    };

    template <class Owned>
    void keep(Owned&& owned) {
        auto owner = std::make_shared<const std::remove_cvref_t<Owned>>(std::forward<Owned>(owned));
        view(*owner);
        m_owner = std::move(owner);
    }

    template <class E>
    void view(const E& expression) {
        using U = std::remove_cvref_t<decltype(*expression.data())>;
        const U* const data = expression.data() + expression.data_offset();
        const auto rs = static_cast<std::ptrdiff_t>(expression.strides()[0]);
        const auto cs = static_cast<std::ptrdiff_t>(expression.strides()[1]);
        m_rows = static_cast<std::size_t>(expression.shape()[0]);
        m_cols = static_cast<std::size_t>(expression.shape()[1]);
        m_reader.elements = {data, rs, cs, detail::read_strided<T, U>};
        m_reader.cols = m_cols;
        // xtensor gives stride 0 to dimensions of extent 1, which is as good as contiguous.
        if ((cs != 1 && m_cols != 1) || (rs <= 0 && m_rows != 1)) return;
        const std::size_t row_stride = m_rows == 1 ? m_cols : static_cast<std::size_t>(rs);
        if constexpr (std::is_same_v<U, T>) {
            m_data = data;
            m_row_stride = row_stride;
        } else if constexpr (std::is_same_v<T, float> && detail::is_number_kind<U>) {
            m_stored = {.data = reinterpret_cast<const std::byte*>(data),
                        .row_bytes = row_stride * sizeof(U),
                        .kind = detail::number_kind<U>()};
        }
    }

    std::size_t m_rows = 0;
    std::size_t m_cols = 0;
    reader_from m_reader;
    const T* m_data = nullptr;
    std::size_t m_row_stride = 0;
    detail::stored_matrix m_stored{};
    std::shared_ptr<const void> m_owner;
};

/// A short vector argument (gains, biases) of element type T, copied in.
template <class T>
class vector_input {
public:
    /// No vector.
    vector_input() = default;

    /// @throws error errc::shape_mismatch if the expression is not of rank 1
    template <detail::array_expression E>
    vector_input(const E& expression) {  // NOLINT(google-explicit-constructor): a parameter type
        detail::require_rank(expression.dimension(), 1, "vector_input");
        m_values.reserve(static_cast<std::size_t>(expression.shape()[0]));
        for (const auto& value : expression) m_values.push_back(static_cast<T>(value));
    }
    vector_input(std::vector<T> values) : m_values(std::move(values)) {}  // NOLINT: a parameter type

    [[nodiscard]] bool empty() const noexcept { return m_values.empty(); }
    [[nodiscard]] std::size_t size() const noexcept { return m_values.size(); }
    [[nodiscard]] const T* data() const noexcept { return m_values.data(); }
    [[nodiscard]] const std::vector<T>& values() const noexcept { return m_values; }

private:
    std::vector<T> m_values;
};

}  // namespace larql

#endif
