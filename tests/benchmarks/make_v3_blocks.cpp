// SPDX-License-Identifier: Apache-2.0
//
// make_v3_blocks FOLDER [BLOCKS]: a checkpoint of the first blocks of DeepSeek-V3 at their true sizes, with random bf16
// weights: 2.3 GB for the two that are there by default. For measuring conversions.
#include <larql/safetensors_writer.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace {

constexpr std::uint64_t hidden = 7168, heads = 128, q_rank = 1536, kv_rank = 512, nope = 128, rope = 64, value = 128;
constexpr std::uint64_t intermediate = 18432, vocabulary = 1024;

struct planned {
    std::string name;
    std::vector<std::uint64_t> shape;
};

std::vector<planned> tensors_of(std::uint64_t blocks) {
    std::vector<planned> all = {{"model.embed_tokens.weight", {vocabulary, hidden}},
                                {"model.norm.weight", {hidden}},
                                {"lm_head.weight", {vocabulary, hidden}}};
    for (std::uint64_t i = 0; i < blocks; ++i) {
        const std::string layer = "model.layers." + std::to_string(i) + ".", attention = layer + "self_attn.";
        all.push_back({layer + "input_layernorm.weight", {hidden}});
        all.push_back({layer + "post_attention_layernorm.weight", {hidden}});
        all.push_back({attention + "q_a_proj.weight", {q_rank, hidden}});
        all.push_back({attention + "q_a_layernorm.weight", {q_rank}});
        all.push_back({attention + "q_b_proj.weight", {heads * (nope + rope), q_rank}});
        all.push_back({attention + "kv_a_proj_with_mqa.weight", {kv_rank + rope, hidden}});
        all.push_back({attention + "kv_a_layernorm.weight", {kv_rank}});
        all.push_back({attention + "kv_b_proj.weight", {heads * (nope + value), kv_rank}});
        all.push_back({attention + "o_proj.weight", {hidden, heads * value}});
        all.push_back({layer + "mlp.gate_proj.weight", {intermediate, hidden}});
        all.push_back({layer + "mlp.up_proj.weight", {intermediate, hidden}});
        all.push_back({layer + "mlp.down_proj.weight", {hidden, intermediate}});
    }
    return all;
}

nlohmann::json config_of(std::uint64_t blocks) {
    return {{"architectures", {"DeepseekV3ForCausalLM"}},
            {"model_type", "deepseek_v3"},
            {"attention_bias", false},
            {"dtype", "bfloat16"},
            {"hidden_act", "silu"},
            {"hidden_size", hidden},
            {"intermediate_size", intermediate},
            {"kv_lora_rank", kv_rank},
            {"max_position_embeddings", 163840},
            {"num_attention_heads", heads},
            {"num_hidden_layers", blocks},
            {"num_key_value_heads", heads},
            {"q_lora_rank", q_rank},
            {"qk_nope_head_dim", nope},
            {"qk_rope_head_dim", rope},
            {"rms_norm_eps", 1e-6},
            {"rope_theta", 10000.0},
            {"rope_scaling",
             {{"type", "yarn"},
              {"factor", 40},
              {"original_max_position_embeddings", 4096},
              {"beta_fast", 32},
              {"beta_slow", 1},
              {"mscale", 1.0},
              {"mscale_all_dim", 1.0}}},
            {"tie_word_embeddings", false},
            {"v_head_dim", value},
            {"vocab_size", vocabulary}};
}

/// Numbers of either sign between 1/128 and 1/64.
class random_numbers {
public:
    std::span<const std::byte> next(std::size_t bytes) {
        m_values.resize(bytes / sizeof(std::uint64_t) + 1);
        for (std::uint64_t& four : m_values) {
            m_state ^= m_state << 13;
            m_state ^= m_state >> 7;
            m_state ^= m_state << 17;
            four = (m_state & 0x807f807f807f807f) | 0x3c003c003c003c00;
        }
        return std::as_bytes(std::span(m_values)).first(bytes);
    }

private:
    std::uint64_t m_state = 0x9e3779b97f4a7c15;
    std::vector<std::uint64_t> m_values;
};

}  // namespace

int main(int argc, char** argv) try {
    if (argc < 2 || argc > 3) {
        std::cerr << "usage: make_v3_blocks FOLDER [BLOCKS]\n";
        return 2;
    }
    const std::filesystem::path folder = argv[1];
    const std::uint64_t blocks = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 2;
    std::filesystem::create_directories(folder);
    larql::safetensors_writer writer(folder / "model.safetensors", {.replace = true});
    const std::vector<planned> all = tensors_of(blocks);
    for (const planned& tensor : all) writer.add_tensor(tensor.name, larql::dtype::bf16, tensor.shape);
    random_numbers random;
    for (const planned& tensor : all) {
        std::uint64_t left = 2;
        for (const std::uint64_t extent : tensor.shape) left *= extent;
        while (left != 0) {
            const auto now = static_cast<std::size_t>(std::min<std::uint64_t>(left, 16U << 20));
            writer.write(tensor.name, random.next(now));
            left -= now;
        }
    }
    writer.commit();
    std::ofstream(folder / "config.json") << config_of(blocks).dump(2) << '\n';
    return 0;
} catch (const std::exception& e) {
    std::cerr << "make_v3_blocks: " << e.what() << '\n';
    return 1;
}
