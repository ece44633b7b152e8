// SPDX-License-Identifier: Apache-2.0
//
// Families that larql knows and does not compute, with what stands in the way.
#ifndef LARQL_DETAIL_MODEL_FAMILIES_REFUSED_HPP
#define LARQL_DETAIL_MODEL_FAMILIES_REFUSED_HPP

#include <larql/model_family.hpp>

namespace larql::detail {

// Source: transformers 5.24's modeling code; of models that it does not have, the code published with them.
inline constexpr model_family refused_families[] = {
    // Their rows in safetensors are computed; of GGUF nobody can say whose rotation a file's maker meant.
    {.name = "hy_v4_gguf",
     .gguf_architecture = "hy_v4",
     .refused = "transformers rotates halves and llama.cpp neighbours, over the same rows"},
    {.name = "dots3_note_gguf",
     .gguf_architecture = "dots3note",
     .refused = "in its indexer transformers rotates neighbours and llama.cpp halves, over the same rows"},
    {.name = "gigachat35", .model_types = {"gigachat35"}, .refused = "the norms of its latents have gates"},
    {.name = "motif3", .model_types = {"motif3"}, .refused = "its attention is the difference of two softmaxes"},
    {.name = "qwen4_exp",
     .model_types = {"qwen4_exp", "qwen4_exp_text"},
     .refused = "its indexer chooses blocks of compressed keys"},
    {.name = "minimax_m3",
     .model_types = {"minimax_m3", "minimax_m3_vl", "minimax_m3_vl_text"},
     .refused = "its indexer chooses blocks of keys for each group of heads"},
    {.name = "zaya", .model_types = {"zaya"}, .refused = "it convolves queries and keys"},
    {.name = "inkling",
     .model_types = {"inkling_mm_model", "inkling_text", "inkling2", "inkling2_text"},
     .refused = "it convolves keys and values, and adds learned biases of distance to its scores"},
    {.name = "inkling2_loop",
     .model_types = {"inkling2_loop_text"},
     .refused = "it convolves keys and values, and runs its layers several times"},
    {.name = "phi3small", .model_types = {"phi3small"}, .refused = "its attention is sparse by blocks"},
    {.name = "yuan", .model_types = {"yuan"}, .refused = "it convolves what queries and keys are made of"},
    {.name = "nemotron_labs_diffusion",
     .model_types = {"nemotron_labs_diffusion"},
     .refused = "the tokens of a block see each other in both directions"},
    {.name = "step3p7",
     .model_types = {"step3p7"},
     .refused = "its configuration has no text_config, without which transformers takes the defaults of its class"},
    {.name = "bitnet",
     .model_types = {"bitnet"},
     .refused = "it norms the heads' outputs before their projection, and rounds what its projections read"},
    {.name = "diffllama", .model_types = {"diffllama"}, .refused = "its attention is the difference of two softmaxes"},
    {.name = "doge", .model_types = {"doge"}, .refused = "its mask is made of the values"},
    {.name = "dory",
     .model_types = {"dory"},
     .refused = "it norms the heads' outputs before their projection, and runs its layers several times"},
    {.name = "hrm_text",
     .model_types = {"hrm_text"},
     .refused = "it runs its layers several times, and the tokens of a prefix see each other in both directions"},
    {.name = "jetmoe", .model_types = {"jetmoe"}, .refused = "its query and output projections are of experts"},
    {.name = "zamba",
     .model_types = {"zamba", "zamba2"},
     .refused = "its layers share one attention, which reads the embeddings, too"},
    {.name = "gpt_neox_japanese",
     .model_types = {"gpt_neox_japanese"},
     .refused = "its last block alone has a bias, which is added with the residual"},
    {.name = "cpmant", .model_types = {"cpmant"}, .refused = "it adds learned biases of distance to its scores"},
    {.name = "roformer",
     .model_types = {"roformer"},
     .refused = "it is an encoder: tokens see what comes after them, but where is_decoder says otherwise"},
    {.name = "glm4v",
     .model_types = {"glm4v"},
     .refused = "its configuration has no text_config, without which transformers takes the defaults of its class"},
};

}  // namespace larql::detail

#endif
