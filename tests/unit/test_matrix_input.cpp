// SPDX-License-Identifier: Apache-2.0
#include <larql/dtype.hpp>
#include <larql/matrix_input.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#if __has_include(<xtensor/views/xview.hpp>)
#include <xtensor/containers/xarray.hpp>
#include <xtensor/misc/xmanipulation.hpp>
#include <xtensor/views/xstrided_view.hpp>
#include <xtensor/views/xview.hpp>
#else
#include <xtensor/xarray.hpp>
#include <xtensor/xmanipulation.hpp>
#include <xtensor/xstrided_view.hpp>
#include <xtensor/xview.hpp>
#endif

namespace {

using larql::matrix_input;
using larql::tensor;

constexpr std::size_t rows = 12, cols = 10;

/// Element (r, c) is 100 r + c.
template <class Matrix>
Matrix numbered() {
    Matrix m = Matrix::from_shape({rows, cols});
    for (std::size_t r = 0; r < rows; ++r)
        for (std::size_t c = 0; c < cols; ++c) m(r, c) = static_cast<typename Matrix::value_type>(float(100 * r + c));
    return m;
}

std::vector<float> numbered_vector() {
    const auto m = numbered<tensor<float, 2>>();
    return {m.begin(), m.end()};
}

template <class Matrix>
const Matrix const_numbered() {
    return numbered<Matrix>();
}

constexpr std::array<std::size_t, 2> shape{rows, cols};
const std::vector<std::size_t> dynamic_shape{rows, cols};

/// Whether rows and columns are those of `numbered` from (row, col) on.
template <class T>
bool holds(const matrix_input<T>& m, std::size_t row = 0, std::size_t col = 0) {
    const tensor<T, 2> read = m.to_tensor();
    for (std::size_t r = 0; r < m.rows(); ++r)
        for (std::size_t c = 0; c < m.cols(); ++c)
            if (read(r, c) != static_cast<T>(100 * (r + row) + c + col)) return false;
    return m.rows() + row == rows && m.cols() + col == cols;
}

/// Where a matrix has its elements, or null if it cannot be read in place.
template <class T>
const T* place(const matrix_input<T>& m) {
    return m.source().data;
}

struct weights {
    matrix_input<float> a{}, b{};
};

using column_major = xt::xtensor<float, 2, xt::layout_type::column_major>;

}  // namespace

TEST_CASE("matrix_input: containers with a name are seen where they lie") {
    auto x = numbered<tensor<float, 2>>();
    const auto c = numbered<tensor<float, 2>>();
    auto dynamic = numbered<xt::xarray<float>>();
    const auto turned = numbered<column_major>();
    const auto wide = numbered<tensor<double, 2>>();
    CHECK(place(matrix_input<float>(x)) == x.data());
    CHECK(place(matrix_input<float>(c)) == c.data());
    CHECK(place(matrix_input<float>(dynamic)) == dynamic.data());
    for (const matrix_input<float>& m : {matrix_input<float>(x), matrix_input<float>(c), matrix_input<float>(dynamic),
                                         matrix_input<float>(turned), matrix_input<float>(wide)})
        CHECK(holds(m));
    const matrix_input<float> m = x;
    x(3, 4) = -1;
    CHECK(m.to_tensor()(3, 4) == -1);
}

TEST_CASE("matrix_input: temporary containers are moved in") {
    auto x = numbered<tensor<float, 2>>();
    const float* const place_of_x = x.data();
    weights w;
    w.a = std::move(x);
    CHECK(place(w.a) == place_of_x);
    CHECK(holds(w.a));

    auto dynamic = numbered<xt::xarray<float>>();
    const float* const place_of_dynamic = dynamic.data();
    w.b = std::move(dynamic);
    CHECK(place(w.b) == place_of_dynamic);
    CHECK(holds(w.b));
}

TEST_CASE("matrix_input: keeps temporary containers of any layout, element type and constness") {
    weights w{.a = numbered<tensor<double, 2>>(), .b = numbered<column_major>()};
    CHECK(holds(w.a));
    CHECK(holds(w.b));
    w = {.a = numbered<xt::xarray<double>>(), .b = numbered<tensor<int, 2>>()};
    CHECK(holds(w.a));
    CHECK(holds(w.b));
    w = {.a = const_numbered<tensor<float, 2>>(), .b = const_numbered<xt::xarray<double>>()};
    CHECK(holds(w.a));
    CHECK(holds(w.b));
    matrix_input<double> halves = numbered<tensor<larql::f16, 2>>();
    const auto expected = numbered<tensor<larql::f16, 2>>();
    const auto read = halves.to_tensor();
    CHECK(read(11, 9) == static_cast<double>(static_cast<float>(expected(11, 9))));
    const xt::xtensor_fixed<float, xt::xshape<2, 2>> square{{1, 2}, {3, 4}};
    w.a = xt::xtensor_fixed<float, xt::xshape<2, 2>>(square);
    CHECK(w.a.to_tensor() == square);
}

TEST_CASE("matrix_input: a temporary view or adaptor of what has a name copies nothing") {
    const auto x = numbered<tensor<float, 2>>();
    auto y = numbered<xt::xarray<double>>();
    const std::vector<float> vector = numbered_vector();
    const float* pointer = vector.data();
    weights w;

    w.a = xt::view(x, xt::range(2, 12), xt::all());
    CHECK(place(w.a) == &x(2, 0));
    CHECK(holds(w.a, 2));
    w.a = xt::view(xt::view(x, xt::range(2, 12), xt::all()), xt::range(1, 10), xt::range(3, 10));
    CHECK(place(w.a) == &x(3, 3));
    CHECK(holds(w.a, 3, 3));
    w.a = xt::strided_view(x, {xt::range(4, 12), xt::range(5, 10)});
    CHECK(place(w.a) == &x(4, 5));
    CHECK(holds(w.a, 4, 5));

    w.a = xt::adapt(vector, shape);
    CHECK(place(w.a) == pointer);
    w.a = xt::adapt(vector, dynamic_shape);
    CHECK(place(w.a) == pointer);
    w.a = xt::adapt(pointer, rows * cols, xt::no_ownership(), dynamic_shape);
    CHECK(place(w.a) == pointer);
    w.a = xt::adapt(vector.data(), rows * cols, xt::no_ownership(), shape);
    CHECK(place(w.a) == pointer);
    w.a = xt::adapt(vector.data(), rows * cols, xt::no_ownership(), shape, std::array<std::size_t, 2>{cols, 1});
    CHECK(place(w.a) == pointer);
    w.a = xt::view(xt::adapt(vector.data(), dynamic_shape), xt::range(1, 12), xt::all());
    CHECK(place(w.a) == pointer + cols);
    CHECK(holds(w.a, 1));

    w.a = xt::view(y, xt::all(), xt::all());  // converted as it is read
    CHECK(holds(w.a));
    y(0, 0) = 7;
    CHECK(w.a.to_tensor()(0, 0) == 7);
    auto z = numbered<tensor<float, 2>>();
    w.a = xt::transpose(z);
    z(1, 2) = -5;
    CHECK(w.a.to_tensor()(2, 1) == -5);
}

TEST_CASE("matrix_input: keeps what a temporary view or adaptor owns") {
    weights w;
    w.a = xt::view(numbered<tensor<float, 2>>(), xt::range(2, 12), xt::all());
    CHECK(holds(w.a, 2));
    w.a = xt::view(numbered<xt::xarray<double>>(), xt::range(2, 12), xt::range(1, 10));
    CHECK(holds(w.a, 2, 1));
    w.a = xt::view(xt::view(numbered<tensor<float, 2>>(), xt::range(2, 12), xt::all()), xt::range(1, 10), xt::all());
    CHECK(holds(w.a, 3));
    w.a = xt::view(const_numbered<tensor<float, 2>>(), xt::range(2, 12), xt::all());
    CHECK(holds(w.a, 2));
    w.a = xt::strided_view(numbered<tensor<float, 2>>(), {xt::range(2, 12), xt::all()});
    CHECK(holds(w.a, 2));
    w.a = xt::transpose(numbered<tensor<float, 2>>());
    CHECK(w.a.to_tensor() == xt::transpose(numbered<tensor<float, 2>>()));

    w.a = xt::adapt(numbered_vector(), shape);
    CHECK(holds(w.a));
    w.a = xt::adapt(numbered_vector(), dynamic_shape);
    CHECK(holds(w.a));
    const std::vector<float> values = numbered_vector();
    float* acquired = std::allocator<float>().allocate(values.size());  // what the adaptor will free it with
    std::copy(values.begin(), values.end(), acquired);
    w.a = xt::adapt(acquired, values.size(), xt::acquire_ownership(), shape);
    CHECK(holds(w.a));
    auto shared = std::make_shared<std::vector<float>>(values);
    float* pointer = shared->data();
    w.a = xt::adapt_smart_ptr(pointer, dynamic_shape, std::move(shared));
    CHECK(holds(w.a));

    const auto x = numbered<tensor<float, 2>>();
    w.a = x + 0.0F;
    CHECK(holds(w.a));
    w.a = numbered<tensor<double, 2>>() + 0.0;
    CHECK(holds(w.a));
}

TEST_CASE("matrix_input: views with a name are seen where they lie, whoever owns the elements") {
    auto owner = xt::view(numbered<tensor<float, 2>>(), xt::range(2, 12), xt::all());
    const matrix_input<float> m = owner;
    CHECK(place(m) == &owner(0, 0));
    CHECK(holds(m, 2));
}

TEST_CASE("matrix_input: copies and parts keep the elements too") {
    matrix_input<float> part;
    {
        const matrix_input<float> whole = numbered<tensor<double, 2>>();
        const matrix_input<float> copy = whole;
        part = copy.row_range(2, rows).row_range(3, rows - 2);
    }
    CHECK(holds(part, 5));
}

TEST_CASE("matrix_input: parts of a reader's rows") {
    const matrix_input<float> whole(rows, cols, [](std::size_t b, std::size_t e, float* out, std::size_t stride) {
        for (std::size_t r = b; r < e; ++r, out += stride)
            for (std::size_t c = 0; c < cols; ++c) out[c] = static_cast<float>(100 * r + c);
    });
    const matrix_input<float> part = whole.row_range(2, 12).row_range(3, 10);
    CHECK(holds(part, 5));
    std::vector<float> read(cols);
    part.source().read_rows(1, 2, read.data(), cols);
    CHECK(read[4] == 604);
    CHECK(matrix_input<float>().empty());
    CHECK(!part.empty());
}

TEST_CASE("matrix_input: temporaries of another rank are refused at run time") {
    using larql::errc;
    const std::vector<float> values(24);
    const auto refuses = [](auto make) {
        try {
            const matrix_input<float> m = make();
        } catch (const larql::error& e) {
            return e.code() == errc::shape_mismatch;
        }
        return false;
    };
    CHECK(refuses([] { return tensor<float, 3>::from_shape({2, 3, 4}); }));
    CHECK(refuses([] { return tensor<double, 1>::from_shape({2}); }));
    CHECK(refuses([] { return xt::xarray<float>::from_shape({2, 3, 4}); }));
    CHECK(refuses([&] { return xt::adapt(values, std::array<std::size_t, 3>{2, 3, 4}); }));
    CHECK(refuses([] { return xt::view(tensor<float, 3>::from_shape({2, 3, 4}), xt::all(), xt::all(), xt::all()); }));
    CHECK(refuses([] { return xt::adapt(std::vector<float>(24), std::array<std::size_t, 3>{2, 3, 4}); }));
}

TEST_CASE("vector_input: copies what it is given") {
    struct {
        larql::vector_input<float> gains{};
    } w;
    w.gains = tensor<double, 1>{1, 2, 3};
    CHECK(w.gains.values() == std::vector<float>{1, 2, 3});
    w.gains = xt::view(tensor<float, 1>{1, 2, 3}, xt::range(1, 3));
    CHECK(w.gains.values() == std::vector<float>{2, 3});
}
