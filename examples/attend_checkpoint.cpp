// SPDX-License-Identifier: Apache-2.0
#include <larql/checkpoint.hpp>

#include <cstdio>

int main(int argc, char** argv) try {
    if (argc != 2) return 2;
    const auto model = larql::checkpoint::open(argv[1]);  // GGUF (any shard) or safetensors
    const auto layer = model.attention(0, larql::attention_form::latent);
    auto cache = layer.make_cache<larql::f16>(4096);

    const std::size_t width = model.config().hidden_size;
    const larql::tensor<float, 2> prompt = xt::ones<float>({std::size_t{8}, width});
    const auto first = layer.forward(prompt, cache);  // eight tokens, then one more
    const auto next = layer.forward(larql::tensor<float, 2>(xt::ones<float>({std::size_t{1}, width})), cache);
    std::printf("%zu tokens cached, output [%zu, %zu], first element %.6f\n", cache.size(), next.out.shape(0),
                next.out.shape(1), static_cast<double>(first.out(0, 0)));
} catch (const larql::error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
}
