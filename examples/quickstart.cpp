// SPDX-License-Identifier: Apache-2.0
//
// Holds checkpoints of one model against the attention that transformers computed on it: every checkpoint, in every
// form that it can be computed in. Usage: quickstart REFERENCE.safetensors CHECKPOINT...
#include <larql/checkpoint.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <string>

namespace {

/// Largest difference over largest magnitude.
double relative_error(const larql::tensor<float, 2>& got, const larql::tensor<float, 2>& want) {
    double worst = 0.0, size = 0.0;
    for (std::size_t i = 0; i < want.size(); ++i) {
        const double difference = std::abs(static_cast<double>(got.data()[i]) - static_cast<double>(want.data()[i]));
        if (!(difference <= worst)) worst = difference;  // a NaN stays
        size = std::max(size, std::abs(static_cast<double>(want.data()[i])));
    }
    return worst / size;
}

/// The worst error over all blocks, of the context and of the block's output.
double worst_error(const larql::checkpoint& model, const larql::safetensors_file& reference,
                   larql::attention_form form) {
    double worst = 0.0;
    for (std::size_t block = 0; block < model.attention_blocks(); ++block) {
        const std::string layer = "layer" + std::to_string(block) + ".";
        const auto result = model.attention(block, form).forward(reference.read<2>(layer + "hidden"));
        for (const double e : {relative_error(result.context, reference.read<2>(layer + "context")),
                               relative_error(result.out, reference.read<2>(layer + "out"))})
            if (!(e <= worst)) worst = e;
    }
    return worst;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        if (argc < 3) {
            std::fprintf(stderr, "usage: quickstart REFERENCE.safetensors CHECKPOINT...\n");
            return 2;
        }
        constexpr double bound = 2e-5;
        bool good = true;
        const auto reference = larql::safetensors_file::open(argv[1]);
        std::printf("%-64s %-9s %-10s\n", "checkpoint", "form", "error against transformers");
        for (int i = 2; i < argc; ++i) {
            const auto model = larql::checkpoint::open(argv[i]);
            for (const auto form :
                 {larql::attention_form::factored, larql::attention_form::dense, larql::attention_form::latent}) {
                if (!model.supports(form)) continue;  // a conversion has the form that it has
                const double error = worst_error(model, reference, form);
                const bool within = error <= bound;
                good = good && within;
                std::printf("%-64s %-9s %.1e %s\n", argv[i], std::string(to_string(form)).c_str(), error,
                            within ? "ok" : "TOO LARGE");
            }
        }
        std::printf("%s within %.0e of the largest magnitude\n", good ? "all" : "not all", bound);
        return good ? 0 : 1;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "quickstart: %s\n", e.what());
        return 1;
    }
}
