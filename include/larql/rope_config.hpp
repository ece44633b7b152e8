// SPDX-License-Identifier: Apache-2.0
//
// The description of a model's rotary position embedding: plain data, filled by model_config.hpp from a checkpoint or
// by an engine from its own, and turned into frequencies by rope.hpp.
#ifndef LARQL_ROPE_CONFIG_HPP
#define LARQL_ROPE_CONFIG_HPP

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace larql {

/// Which elements of a head rotate together.
enum class rope_pairing : std::uint8_t {
    none,         ///< the model does not rotate (NoPE); a "rope" part may exist all the same
    interleaved,  ///< pairs (2j, 2j+1): DeepSeek's weights, GGUF "NORM"
    half_split,   ///< pairs (j, j + D/2): Hugging Face's rotate_half, GGUF "NEOX"
};

/// How the frequencies are scaled beyond the training context. Names as in transformers' `rope_type`.
enum class rope_kind : std::uint8_t {
    standard,      ///< "default"
    linear,        ///< frequencies divided by `factor`
    dynamic,       ///< NTK-aware: the base grows with the sequence, at each doubling, or by `alpha`
    yarn,          ///< arXiv 2309.00071
    longrope,      ///< arXiv 2402.13753, also "su"
    llama3,        ///< Llama 3.1's piecewise scaling
    proportional,  ///< exponents over the whole head, zero frequencies beyond the rotated part
    divisors,      ///< each frequency divided by a stored number: GGUF's `rope_freqs` tensor
};

constexpr std::string_view to_string(rope_pairing pairing) noexcept {
    switch (pairing) {
        case rope_pairing::none: return "none";
        case rope_pairing::interleaved: return "interleaved";
        case rope_pairing::half_split: return "half_split";
    }
    return "unknown";
}

/// The pairing with this name, or nothing.
constexpr std::optional<rope_pairing> rope_pairing_from_name(std::string_view name) noexcept {
    for (const rope_pairing p : {rope_pairing::none, rope_pairing::interleaved, rope_pairing::half_split})
        if (to_string(p) == name) return p;
    return std::nullopt;
}

constexpr std::string_view to_string(rope_kind kind) noexcept {
    switch (kind) {
        case rope_kind::standard: return "default";
        case rope_kind::linear: return "linear";
        case rope_kind::dynamic: return "dynamic";
        case rope_kind::yarn: return "yarn";
        case rope_kind::longrope: return "longrope";
        case rope_kind::llama3: return "llama3";
        case rope_kind::proportional: return "proportional";
        case rope_kind::divisors: return "divisors";
    }
    return "unknown";
}

/// A rotary embedding. Only the members that `kind` uses matter; positions and lengths are in tokens.
struct rope_config {
    rope_kind kind = rope_kind::standard;
    std::size_t rotary_dim = 0;  ///< D: rotated elements of a head, even; for MLA the rope part alone
    double theta = 10000.0;      ///< base of the frequencies: omega_j = theta^(-2j/D)
    double factor = 1.0;
    double max_position = 0;           ///< max_position_embeddings: dynamic
    double original_max_position = 0;  ///< original_max_position_embeddings: yarn, longrope, llama3

    std::optional<double> attention_factor{};  ///< yarn, longrope: overrides the derived magnitude
    double magnitude_factor = 1.0;             ///< multiplies the magnitude of any kind: GGUF's attn_factor
    double beta_fast = 32.0;                   ///< yarn
    double beta_slow = 1.0;
    std::optional<double> mscale{};
    std::optional<double> mscale_all_dim{};
    bool truncate = true;  ///< yarn: round the bounds of the ramp outwards

    double low_freq_factor = 1.0;  ///< llama3
    double high_freq_factor = 4.0;

    std::optional<double> alpha{};       ///< dynamic with a fixed base (HunYuan)
    bool doubling = false;               ///< dynamic: the base grows where the length passes a double of max_position
    std::vector<double> short_factor{};  ///< longrope: D/2 divisors up to original_max_position
    std::vector<double> long_factor{};   ///< longrope: D/2 divisors beyond it
    std::optional<double> short_magnitude{};  ///< longrope: the magnitude up to original_max_position (PhiMoE)
    std::optional<double> long_magnitude{};   ///< longrope: beyond it
    std::vector<double> divisors{};           ///< divisors: D/2 of them
    double partial_rotary_factor = 1.0;       ///< proportional: share of the D/2 frequencies that is not zero
    bool backwards = false;                   ///< any kind: heads turn by the negative of their angles (NanoChat)
    /// Any kind: what multiplies each of the D/2 frequencies after everything else (Mistral-Large-4). Of a `learned`
    /// embedding they are a tensor of the model, and empty where a configuration alone was read.
    std::vector<double> multipliers{};
    bool learned = false;

    friend bool operator==(const rope_config&, const rope_config&) = default;
};

/// The kind with this name of transformers' `rope_type`; nothing for other names.
constexpr std::optional<rope_kind> rope_kind_from_name(std::string_view name) noexcept {
    if (name == "su") return rope_kind::longrope;
    if (name == "deepseek_yarn") return rope_kind::yarn;
    if (name == "mrope") return rope_kind::standard;  // for text all axes are equal
    for (const rope_kind kind : {rope_kind::standard, rope_kind::linear, rope_kind::dynamic, rope_kind::yarn,
                                 rope_kind::longrope, rope_kind::llama3, rope_kind::proportional, rope_kind::divisors})
        if (name == to_string(kind)) return kind;
    return std::nullopt;
}

/// Whether the frequencies depend on the length of the sequence.
constexpr bool depends_on_length(const rope_config& rope) noexcept {
    return (rope.kind == rope_kind::dynamic && !rope.alpha) || rope.kind == rope_kind::longrope;
}

}  // namespace larql

#endif
