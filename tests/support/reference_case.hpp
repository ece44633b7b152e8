// SPDX-License-Identifier: Apache-2.0
//
// A checkpoint against what transformers computed on it, in one pass and token by token.
#ifndef LARQL_TESTS_SUPPORT_REFERENCE_CASE_HPP
#define LARQL_TESTS_SUPPORT_REFERENCE_CASE_HPP

#include <larql/checkpoint.hpp>
#include <support/tiny_model.hpp>

#include <algorithm>
#include <cstddef>
#include <string>

namespace larql::testing {

/// The worst relative error of a checkpoint's blocks, factored, against tests/data/hf/<name>/reference.safetensors.
inline double worst_error(const checkpoint& model, const std::string& name) {
    const auto reference =
        safetensors_file::open(std::string(LARQL_TEST_DATA) + "/hf/" + name + "/reference.safetensors");
    double worst = 0.0;
    const auto note = [&](double error) {
        if (!(error <= worst)) worst = error;
    };
    for (std::size_t block = 0; block < model.attention_blocks(); ++block) {
        const std::string layer = "layer" + std::to_string(block) + ".";
        const tensor<float, 2> hidden = reference.read<2>(layer + "hidden"), out = reference.read<2>(layer + "out");
        const auto attention = model.attention(block, attention_form::factored);
        const auto whole = attention.forward(hidden);
        note(relative_error(whole.context, reference.read<2>(layer + "context")));
        note(relative_error(whole.out, out));
        if (depends_on_length(attention.spec().rope))
            continue;  // a cache keeps keys as a shorter sequence rotated them
        auto cache = attention.make_cache(hidden.shape(0));
        tensor<float, 2> stepwise = xt::zeros_like(out);
        const std::size_t width = hidden.shape(1);
        for (std::size_t t = 0; t < hidden.shape(0); ++t) {
            auto token = tensor<float, 2>::from_shape({1, width});
            std::copy_n(hidden.data() + t * width, width, token.data());
            const auto result = attention.forward(token, cache);
            std::copy_n(result.out.data(), out.shape(1), stepwise.data() + t * out.shape(1));
        }
        note(relative_error(stepwise, out));
    }
    return worst;
}

}  // namespace larql::testing

#endif
