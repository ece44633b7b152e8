// SPDX-License-Identifier: Apache-2.0
//
// What a converted checkpoint holds and computes.
#ifndef LARQL_TESTS_SUPPORT_CONVERTED_HPP
#define LARQL_TESTS_SUPPORT_CONVERTED_HPP

#include <larql/checkpoint.hpp>
#include <larql/ggml_blocks.hpp>
#include <larql/safetensors.hpp>
#include <support/reference_mla.hpp>

#include <cstddef>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace larql::testing {

/// Worst error of context and output over the blocks, against what transformers computed.
inline double error_against(const std::string& reference_case, const checkpoint& model, attention_form form) {
    const safetensors_file reference =
        safetensors_file::open(std::string(LARQL_TEST_DATA) + "/hf/" + reference_case + "/reference.safetensors");
    double worst = 0.0;
    larql::key_selection selected;
    for (std::size_t block = 0; block < model.attention_blocks(); ++block) {
        const std::string layer = "layer" + std::to_string(block) + ".";
        const auto attention = model.attention(block, form);
        const auto result = attention.forward(
            reference.read<2>(layer + "hidden"),
            larql::forward_options{.selection = attention.spec().indexer.shared ? &selected : nullptr});
        selected = result.selection;
        for (const double e : {relative_error(result.context, reference.read<2>(layer + "context")),
                               relative_error(result.out, reference.read<2>(layer + "out"))})
            if (!(e <= worst)) worst = e;
    }
    return worst;
}

inline std::set<std::string> names_of(const checkpoint& model) {
    std::set<std::string> names;
    for (const tensor_info& info : model.tensors()) names.emplace(info.name);
    return names;
}

inline std::vector<float> numbers(const checkpoint& model, std::string_view name) {
    const weight stored = model.weights().at(name);
    std::vector<float> values(stored.rows() * stored.columns());
    stored.read_rows(0, stored.rows(), values.data(), stored.columns());
    return values;
}

inline std::vector<float> rounded(std::vector<float> values, dtype type) {
    std::vector<std::byte> bytes(values.size() * traits_of(type).block_bytes);
    (void)quantize(type, values, bytes);
    dequantize(type, bytes, values);
    return values;
}

}  // namespace larql::testing

#endif
