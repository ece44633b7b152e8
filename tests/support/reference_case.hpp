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
    const auto row_of = [](const tensor<float, 2>& x, std::size_t t) {
        auto row = tensor<float, 2>::from_shape({1, x.shape(1)});
        std::copy_n(x.data() + t * x.shape(1), x.shape(1), row.data());
        return row;
    };
    for (std::size_t block = 0; block < model.attention_blocks(); ++block) {
        const std::string layer = "layer" + std::to_string(block) + ".";
        const tensor<float, 2> hidden = reference.read<2>(layer + "hidden"), out = reference.read<2>(layer + "out");
        const auto attention = model.attention(block, attention_form::factored);
        // Of a block that shares keys and values, what makes them: the other block, and its input.
        const std::size_t other = model.config().kv_block(block);
        const auto source = model.attention(other, attention_form::factored);
        const tensor<float, 2> source_hidden = reference.read<2>("layer" + std::to_string(other) + ".hidden");
        const auto whole = [&] {
            if (other == block) return attention.forward(hidden);
            auto cache = source.make_cache(hidden.shape(0));
            (void)source.forward(source_hidden, cache);
            return attention.forward(hidden, cache);
        }();
        note(relative_error(whole.context, reference.read<2>(layer + "context")));
        note(relative_error(whole.out, out));
        if (depends_on_length(attention.spec().rope))
            continue;  // a cache keeps keys as a shorter sequence rotated them
        auto cache = source.make_cache(hidden.shape(0));
        tensor<float, 2> stepwise = xt::zeros_like(out);
        for (std::size_t t = 0; t < hidden.shape(0); ++t) {
            if (other != block) (void)source.forward(row_of(source_hidden, t), cache);
            const auto result = attention.forward(row_of(hidden, t), cache);
            std::copy_n(result.out.data(), out.shape(1), stepwise.data() + t * out.shape(1));
        }
        note(relative_error(stepwise, out));
    }
    return worst;
}

}  // namespace larql::testing

#endif
