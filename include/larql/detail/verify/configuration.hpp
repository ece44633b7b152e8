// SPDX-License-Identifier: Apache-2.0
//
// Where two configurations disagree on something that changes results. What differs by form or container alone (row
// orders, stored types, what gains are stored less) does not count.
#ifndef LARQL_DETAIL_VERIFY_CONFIGURATION_HPP
#define LARQL_DETAIL_VERIFY_CONFIGURATION_HPP

#include <larql/attention_spec.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/model/json_source.hpp>
#include <larql/detail/model/json_wrapper.hpp>
#include <larql/model_config.hpp>
#include <larql/rope.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <locale>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace larql::detail {

/// A fact of a block, as a number.
struct compared_fact {
    std::string_view name;
    double (*of)(const attention_spec&);
};

// A fact that matters only with another is 0 without it.
#define LARQL_FACT_IF(matters, member)                                                                   \
    {                                                                                                    \
        #member, [](const attention_spec& s) { return s.matters ? static_cast<double>(s.member) : 0.0; } \
    }
#define LARQL_FACT(member)                                                             \
    {                                                                                  \
        #member, [](const attention_spec& s) { return static_cast<double>(s.member); } \
    }
#define LARQL_NORM_FACTS(norm)                                                    \
    LARQL_FACT(norm.kind), LARQL_FACT_IF(norm.kind != norm_kind::none, norm.eps), \
        LARQL_FACT_IF(norm.kind != norm_kind::none, norm.after_rope)

inline constexpr compared_fact compared_facts[] = {
    LARQL_FACT(kind),
    LARQL_FACT(layer),
    LARQL_FACT(part),
    LARQL_FACT(geometry.hidden_size),
    LARQL_FACT(input_width()),
    LARQL_FACT(geometry.num_heads),
    LARQL_FACT(geometry.kv_heads()),
    LARQL_FACT(geometry.q_lora_rank),
    LARQL_FACT(geometry.kv_lora_rank),
    LARQL_FACT(geometry.qk_nope_head_dim),
    LARQL_FACT(geometry.qk_rope_head_dim),
    LARQL_FACT(geometry.v_head_dim),
    LARQL_FACT(scale),
    LARQL_FACT(softcap),
    LARQL_FACT(alibi),
    LARQL_FACT(sliding_window),
    LARQL_FACT(chunk),
    LARQL_FACT(clip),
    LARQL_FACT(value_scale),
    LARQL_FACT(value_is_key),
    LARQL_FACT(kv_layer.has_value()),
    LARQL_FACT_IF(kv_layer, kv_layer.value_or(0)),
    LARQL_FACT(shares_latents),
    LARQL_FACT(sinks),
    LARQL_FACT(gate),
    LARQL_FACT(gated_by),
    LARQL_FACT(temperature.scale),
    LARQL_FACT_IF(temperature.scale != 0.0, temperature.length),
    LARQL_FACT_IF(temperature.scale != 0.0, temperature.offset),
    LARQL_FACT(temperature.logarithmic),
    LARQL_FACT(temperature.per_head),
    LARQL_FACT(compression.ratio),
    LARQL_FACT_IF(compression.ratio != 0, compression.overlapping),
    LARQL_FACT_IF(compression.ratio != 0, compression.index_heads),
    LARQL_FACT_IF(compression.ratio != 0, compression.index_head_dim),
    LARQL_FACT_IF(compression.ratio != 0, compression.index_top_k),
    LARQL_FACT_IF(compression.ratio != 0, compression.norm.eps),
    LARQL_FACT(output_groups),
    LARQL_FACT(output_rank),
    LARQL_FACT(indexer.top_k),
    LARQL_FACT_IF(indexer.any(), indexer.shared),
    LARQL_FACT_IF(indexer.any(), indexer.heads),
    LARQL_FACT_IF(indexer.any(), indexer.head_dim),
    LARQL_FACT_IF(indexer.any(), indexer.pool),
    LARQL_FACT_IF(indexer.any(), indexer.k_norm.kind),
    LARQL_FACT_IF(indexer.any(), indexer.k_norm.eps),
    LARQL_FACT_IF(indexer.any(), indexer.from_input),
    LARQL_FACT_IF(indexer.any(), indexer.per_head),
    LARQL_FACT_IF(indexer.any(), indexer.q_norm.kind),
    LARQL_FACT_IF(indexer.any(), indexer.q_norm.eps),
    LARQL_NORM_FACTS(q_norm),
    LARQL_NORM_FACTS(k_norm),
    LARQL_NORM_FACTS(v_norm),
    LARQL_NORM_FACTS(latent_norm),
    LARQL_NORM_FACTS(k_rope_norm),
    LARQL_FACT(q_latent_scale),
    LARQL_FACT(kv_latent_scale),
};

#undef LARQL_NORM_FACTS
#undef LARQL_FACT
#undef LARQL_FACT_IF

/// GGUF holds float32, config.json decimals.
inline bool same_number(double a, double b) noexcept {
    return a == b || std::fabs(a - b) <= 1e-6 * std::max(std::fabs(a), std::fabs(b));
}

inline std::string number_text(double value) {
    std::ostringstream text;
    text.imbue(std::locale::classic());
    text << value;
    return text.str();
}

/// Where two embeddings rotate differently, or "". A long sequence is asked for as well: some kinds follow its length.
inline std::string rope_difference(const rope_config& a, const rope_config& b) {
    for (const double length : {0.0, 1048576.0}) {
        const rope_table x = make_rope_table(a, length), y = make_rope_table(b, length);
        const auto near = [](double p, double q) { return std::fabs(p - q) <= 1e-5 * std::fabs(q); };
        if (!std::ranges::equal(x.frequencies, y.frequencies, near) || !near(x.magnitude, y.magnitude))
            return "rope: other frequencies or another magnitude (" + std::string(to_string(a.kind)) + " and " +
                   std::string(to_string(b.kind)) + ")";
    }
    return {};
}

/// Facts around attention that both configurations may state, in transformers' words.
inline constexpr std::string_view compared_keys[] = {
    "num_hidden_layers",
    "hidden_act",
    "n_group",
    "topk_group",
    "norm_topk_prob",
    "scoring_func",
    "num_experts_per_tok",
    "num_experts",
    "n_routed_experts",
    "routed_scaling_factor",
    "n_shared_experts",
    "intermediate_size",
    "num_nextn_predict_layers",
    "first_k_dense_replace",
};

/// config.json, or what stands for it; null for models that transformers has no words for.
inline nlohmann::json stated_config(const checkpoint& model) {
    try {
        const nlohmann::json whole = model.config_json();
        return *find_text_part(whole).object;
    } catch (const error&) {
        return nullptr;
    }
}

inline void compare_keys(const checkpoint& a, const checkpoint& b, std::vector<std::string>& out) {
    const nlohmann::json x = stated_config(a), y = stated_config(b);
    if (!x.is_object() || !y.is_object()) return;
    for (const std::string_view key : compared_keys) {
        const auto p = x.find(key), q = y.find(key);
        if (p == x.end() || q == y.end() || p->is_null() || q->is_null()) continue;
        const bool same = p->is_number() && q->is_number() ? same_number(p->get<double>(), q->get<double>()) : *p == *q;
        if (!same) out.push_back(std::string(key) + ": " + p->dump() + " and " + q->dump());
    }
}

/// Every disagreement of blocks that both models have, and of the models as a whole, a sentence each: the fact, what
/// the first says, what the second says. The same in many blocks is one sentence, with the first of them.
inline std::vector<std::string> configuration_differences(const checkpoint& a, const checkpoint& b, std::size_t begin,
                                                          std::size_t end) {
    const model_config &x = a.config(), &y = b.config();
    std::vector<std::string> out;
    const auto differ = [&](std::string_view name, double p, double q) {
        if (!same_number(p, q)) out.push_back(std::string(name) + ": " + number_text(p) + " and " + number_text(q));
    };
    differ("number of attention blocks", static_cast<double>(x.blocks.size()), static_cast<double>(y.blocks.size()));
    differ("rms_norm_eps", x.rms_norm_eps, y.rms_norm_eps);
    compare_keys(a, b, out);
    const std::size_t both = std::min({end, x.blocks.size(), y.blocks.size()});
    const auto first_block = [&](auto&& sentence_of) {  // the first block with a difference speaks for all
        std::string said;
        std::size_t blocks = 0;
        for (std::size_t block = begin; block < both; ++block) {
            const std::string sentence = sentence_of(x.blocks[block], y.blocks[block]);
            if (sentence.empty()) continue;
            if (blocks++ == 0) said = concat({"block ", block, ": ", sentence});
        }
        if (blocks > 1) said += concat({", and in ", blocks - 1, " other blocks"});
        if (blocks != 0) out.push_back(said);
    };
    for (const compared_fact& fact : compared_facts)
        first_block([&](const attention_spec& p, const attention_spec& q) {
            if (same_number(fact.of(p), fact.of(q))) return std::string();
            return std::string(fact.name) + " " + number_text(fact.of(p)) + " and " + number_text(fact.of(q));
        });
    first_block([](const attention_spec& p, const attention_spec& q) { return rope_difference(p.rope, q.rope); });
    return out;
}

}  // namespace larql::detail

#endif
