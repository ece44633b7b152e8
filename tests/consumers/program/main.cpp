// SPDX-License-Identifier: Apache-2.0
// Uses larql as a consumer does, and checks numbers, so that a library that merely links is not enough.
#include <larql/gqa_attention.hpp>
#include <larql/mla_absorb.hpp>

#include <cmath>
#include <cstddef>
#include <cstdio>

/// The other source file: it includes the same headers.
double attention_of_equal_scores();

namespace {

bool is_near(double got, double want, const char* what) {
    if (std::abs(got - want) <= 1e-6 * std::abs(want)) return true;
    std::fprintf(stderr, "%s: expected %g, got %g\n", what, want, got);
    return false;
}

/// One head of 1 + 2 rows: with constant factors, each element of a product is the rank times both constants.
bool absorbs() {
    const larql::mla_geometry geometry{.hidden_size = 5,
                                       .num_heads = 1,
                                       .q_lora_rank = 3,
                                       .kv_lora_rank = 4,
                                       .qk_nope_head_dim = 1,
                                       .qk_rope_head_dim = 2,
                                       .v_head_dim = 2};
    const auto filled = [](std::size_t rows, std::size_t cols, float value) {
        larql::tensor<float, 2> matrix({rows, cols});
        matrix.fill(value);
        return matrix;
    };
    const auto layer =
        larql::absorb(filled(6, 5, 2.0F), filled(3, 4, 0.5F), filled(3, 5, 3.0F), filled(3, 3, 0.25F), geometry);
    bool good = is_near(layer.q(0, 0), 3 * 3.0 * 0.25, "Q");
    good = is_near(layer.k(0, 0), 2.0, "a rotated row of K") && good;  // kv_a's own, in front
    good = is_near(layer.k(2, 0), 4 * 2.0 * 0.5, "a plain row of K") && good;
    return is_near(layer.v(1, 4), 4 * 2.0 * 0.5, "V") && good;
}

}  // namespace

int main() {
    const bool absorbed = absorbs();
    const bool attended = is_near(attention_of_equal_scores(), 2.5, "attention");
    if (!absorbed || !attended) return 1;
    std::puts("larql works here");
}
