// SPDX-License-Identifier: Apache-2.0
// All of larql in two source files: opens the checkpoint that it is given and computes with a layer of it.
#include <larql/larql.hpp>

#include <nlohmann/json.hpp>

#include <cmath>
#include <cstdio>
#include <exception>
#include <filesystem>

/// The other source file: converts the same checkpoint and verifies the copy.
bool copies(const larql::checkpoint& source, const std::filesystem::path& folder);

namespace {

bool computes(const larql::checkpoint& model) {
    const larql::attention_layer<float> layer = model.attention(0, larql::attention_form::factored);
    const std::size_t width = layer.spec().geometry.hidden_size;
    larql::tensor<float, 2> x({3, width});
    for (std::size_t i = 0; i < x.size(); ++i) x.data()[i] = std::sin(static_cast<float>(i));
    larql::kv_cache<larql::f16> cache = layer.make_cache<larql::f16>(8);
    const auto cached = layer.forward(x, cache);
    const auto alone = layer.forward(x);
    for (std::size_t i = 0; i < alone.out.size(); ++i)
        if (!(std::abs(alone.out.data()[i] - cached.out.data()[i]) < 1e-2F)) return false;
    return cache.size() == 3;
}

}  // namespace

int main(int count, char** arguments) try {
    if (count != 3) return 2;
    const larql::checkpoint model =
        larql::checkpoint::open(arguments[1], {.config = nlohmann::json{{"vocab_size", 7}}});
    if (model.config().vocab_size != 7 || !computes(model) || !copies(model, arguments[2])) return 1;
    std::puts("larql works here");
} catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
}
