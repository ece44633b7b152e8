// SPDX-License-Identifier: Apache-2.0
#include <larql/detail/io/json.hpp>
#include <larql/linear.hpp>

#include <doctest/doctest.h>
#include <support/files.hpp>
#include <support/gguf_builder.hpp>
#include <support/random.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

using larql::errc;
using larql::matrix_input;
using larql::matrix_of;
using larql::safetensors_file;
using larql::weight;
using larql::weight_reader;
using larql::weight_storage;
namespace testing = larql::testing;

namespace {

const std::filesystem::path quant_data = std::filesystem::path(LARQL_TEST_DATA) / "quant";

std::vector<float> normal(std::size_t count, std::uint64_t seed) {
    std::vector<float> out(count);
    testing::random_source random(seed);
    random.fill_normal(out);
    return out;
}

/// The worst error of y = x W^T, relative to the magnitude that was summed up, in units of what float sums may lose.
double worst_error(const std::vector<float>& numbers, std::size_t cols, const std::vector<float>& x,
                   const std::vector<float>& y) {
    const std::size_t rows = numbers.size() / cols, tokens = x.size() / cols;
    double worst = 0.0;
    for (std::size_t t = 0; t < tokens; ++t)
        for (std::size_t r = 0; r < rows; ++r) {
            double want = 0.0, magnitude = 1e-30;
            for (std::size_t c = 0; c < cols; ++c) {
                const double term = static_cast<double>(numbers[r * cols + c]) * static_cast<double>(x[t * cols + c]);
                want += term;
                magnitude += std::abs(term);
            }
            const auto got = static_cast<double>(y[t * rows + r]);
            const bool same = got == want || (std::isnan(got) && std::isnan(want));  // of codes that are no numbers
            const double error = same ? 0.0 : std::abs(got - want) / magnitude;
            worst = std::max(worst, std::isnan(error) ? 1e9 : error / (0x1p-23 * (static_cast<double>(cols) / 4 + 8)));
        }
    return worst;
}

double worst_error_of_linear(const weight& w, const std::vector<float>& numbers, std::size_t tokens) {
    const matrix_input<float> matrix = matrix_of(w);
    const std::vector<float> x = normal(tokens * matrix.cols(), tokens);
    std::vector<float> y(tokens * matrix.rows());
    larql::linear(matrix, x.data(), tokens, y.data());
    return worst_error(numbers, matrix.cols(), x, y);
}

bool computes_from_memory(const matrix_input<float>& m) { return m.source().stored.data != nullptr; }

constexpr weight_storage storages[] = {weight_storage::from_file, weight_storage::mapped, weight_storage::copied,
                                       weight_storage::decoded};

}  // namespace

TEST_CASE("linear: multiplies with weights of every scheme, wherever they stand") {
    std::size_t weights = 0, stored = 0;
    for (const auto& entry : std::filesystem::directory_iterator(quant_data)) {
        const std::string file_name = entry.path().filename().string();
        constexpr std::string_view ending = ".expected.safetensors";
        if (!file_name.ends_with(ending)) continue;
        const std::string name = file_name.substr(0, file_name.size() - ending.size());
        const auto config = larql::quantization_config::find_in(
            larql::detail::parse_json(testing::read_file(quant_data / (name + ".config.json")), {}));
        const auto expected = safetensors_file::open(entry.path());
        const weight_reader reader(safetensors_file::open(quant_data / (name + ".safetensors")), config);
        for (const larql::tensor_info& info : expected.tensors()) {
            CAPTURE(name);
            CAPTURE(std::string(info.name));
            std::vector<float> numbers(static_cast<std::size_t>(info.element_count()));
            std::memcpy(numbers.data(), expected.bytes(info).data(), numbers.size() * sizeof(float));
            for (const weight_storage storage : storages) {
                CAPTURE(static_cast<int>(storage));
                const weight w = reader.at(info.name).in(storage);
                std::vector<float> rows(numbers.size());
                w.read_rows(0, w.rows(), rows.data(), static_cast<std::size_t>(w.columns()));
                CHECK(std::ranges::equal(rows, numbers, [](float a, float b) { return a == b || (a != a && b != b); }));
                const bool in_memory = computes_from_memory(matrix_of(w));
                if (storage == weight_storage::decoded) CHECK(in_memory);
                if (storage == weight_storage::from_file) CHECK(!in_memory);
                if (storage == weight_storage::mapped && in_memory) ++stored;
                for (const std::size_t tokens : {1U, 3U, 20U}) CHECK(worst_error_of_linear(w, numbers, tokens) < 1.0);
            }
            ++weights;
        }
    }
    CHECK(weights > 60);
    CHECK(stored > 15);  // plain numbers, and FP8 with scales by tensor, row, block and expert
}

TEST_CASE("linear: computes from ggml's blocks and their sibling scale") {
    const testing::temporary_folder folder;
    const std::vector<float> numbers = normal(3 * 4 * 64, 3);
    std::string blocks(3 * 4 * 2 * 34, '\0');
    larql::quantize(larql::dtype::q8_0, numbers, std::as_writable_bytes(std::span(blocks.data(), blocks.size())));
    testing::gguf_builder builder;
    builder.tensor({.name = "e.weight", .ne = {64, 4, 3}, .type = 8, .data = blocks})
        .floats("e.scale", {3}, {0.5F, 3, 10});
    const weight_reader reader(larql::gguf_file::open(testing::write_file(folder / "a.gguf", builder.build())));
    const weight mapped = reader.at("e.weight").in(weight_storage::mapped);
    CHECK(computes_from_memory(matrix_of(mapped)));
    std::vector<float> want(numbers.size());
    reader.at("e.weight").read_rows(0, 12, want.data(), 64);
    CHECK(std::abs(want[8 * 64] - 10 * numbers[8 * 64]) < 0.2F);
    for (const std::size_t tokens : {1U, 3U, 20U}) CHECK(worst_error_of_linear(mapped, want, tokens) < 1.0);
}

TEST_CASE("linear: takes rows, strides and a bias, and memory of bf16 and f16 as it is") {
    const std::size_t rows = 24, cols = 40, tokens = 3;
    const auto w = [&] {
        auto out = larql::tensor<float, 2>::from_shape({rows, cols});
        testing::random_source random(4);
        random.fill_normal(out);
        return out;
    }();
    const std::vector<float> x = normal(tokens * (cols + 2), 5);
    const auto check = [&](const auto& matrix, double tolerance) {
        std::vector<float> y(tokens * 11, 9.0F);
        const std::vector<float> bias = normal(10, 6);
        larql::linear(matrix, x.data(), tokens, y.data(),
                      {.row_begin = 7, .row_end = 17, .x_stride = cols + 2, .y_stride = 11, .bias = bias});
        for (std::size_t t = 0; t < tokens; ++t) {
            for (std::size_t r = 0; r < 10; ++r) {
                double want = static_cast<double>(bias[r]);
                for (std::size_t c = 0; c < cols; ++c)
                    want += static_cast<double>(w(7 + r, c)) * static_cast<double>(x[t * (cols + 2) + c]);
                CHECK(std::abs(static_cast<double>(y[t * 11 + r]) - want) < tolerance);
            }
            CHECK(y[t * 11 + 10] == 9.0F);
        }
    };
    check(matrix_input<float>(w), 1e-4);
    larql::tensor<larql::bf16, 2> brain({rows, cols});
    larql::tensor<larql::f16, 2> half({rows, cols});
    for (std::size_t i = 0; i < w.size(); ++i) {
        brain.data()[i] = larql::bf16(w.data()[i]);
        half.data()[i] = larql::f16(w.data()[i]);
    }
    check(matrix_input<float>(brain), 0.3);
    check(matrix_input<float>(half), 0.03);
    CHECK(computes_from_memory(brain));
    const larql::tensor<double, 2> wide = w;
    check(matrix_input<float>(wide), 1e-4);  // read, a few rows at a time

    std::vector<float> y(rows);
    LARQL_CHECK_ERROR((larql::linear(w, x.data(), 1, y.data(), {.row_begin = 25}), 0), errc::shape_mismatch, "25");
    LARQL_CHECK_ERROR((larql::linear(w, x.data(), 1, y.data(), {.x_stride = 39}), 0), errc::shape_mismatch,
                      "expected 40 or more, got 39");
    LARQL_CHECK_ERROR((larql::linear(w, x.data(), 1, y.data(), {.y_stride = 23}), 0), errc::shape_mismatch,
                      "expected 24 or more, got 23");
    LARQL_CHECK_ERROR((larql::linear(w, x.data(), 1, y.data(), {.bias = std::span(x).first(5)}), 0),
                      errc::shape_mismatch, "expected 24 elements, got 5");
}

TEST_CASE("linear: a matrix keeps the file or the memory of its weight") {
    const testing::temporary_folder folder;
    const auto path = folder / "a.safetensors";
    std::filesystem::copy_file(quant_data / "deepseek_fp8.safetensors", path);
    const auto config = larql::quantization_config::find_in(
        larql::detail::parse_json(testing::read_file(quant_data / "deepseek_fp8.config.json"), {}));
    const auto weight_in = [&](weight_storage storage) {  // each of a file and a reader of its own, which end here
        return weight_reader(safetensors_file::open(path), config).at("v4.weight").in(storage);
    };
    const weight mapped = weight_in(weight_storage::mapped), copied = weight_in(weight_storage::copied),
                 on_file = weight_in(weight_storage::from_file);
    std::vector<float> numbers(static_cast<std::size_t>(on_file.rows() * on_file.columns()));
    on_file.read_rows(0, on_file.rows(), numbers.data(), static_cast<std::size_t>(on_file.columns()));
    CHECK(worst_error_of_linear(mapped, numbers, 2) < 1.0);
    std::filesystem::remove(path);  // the map stays; ordinary reads find no file
    CHECK(worst_error_of_linear(mapped, numbers, 2) < 1.0);
    CHECK(worst_error_of_linear(copied, numbers, 2) < 1.0);
    CHECK_THROWS_AS(worst_error_of_linear(on_file, numbers, 2), larql::error);
}
