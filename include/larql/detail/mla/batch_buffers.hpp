// SPDX-License-Identifier: Apache-2.0
//
// What a block keeps of a batch of sequences between its steps, so that calls which repeat do not allocate anew.
#ifndef LARQL_DETAIL_MLA_BATCH_BUFFERS_HPP
#define LARQL_DETAIL_MLA_BATCH_BUFFERS_HPP

#include <larql/attention_batch.hpp>
#include <larql/dtype.hpp>
#include <larql/key_selection.hpp>
#include <larql/rope.hpp>

#include <cstddef>
#include <type_traits>
#include <vector>

namespace larql::detail {

/// Lists that grow to the largest call.
struct batch_buffers {
    std::vector<std::size_t> positions{};        // of each token
    std::vector<std::size_t> held{};             // by each cache before the call
    std::vector<key_selection> selections{};     // of each sequence of a sparse block
    std::vector<rope_table> tables{};            // of each sequence, where they follow its length
    std::vector<const rope_table*> of_tokens{};  // of each token
    std::vector<attention_sequence<float>> of_float{};
    std::vector<attention_sequence<bf16>> of_bf16{};
    std::vector<attention_sequence<f16>> of_f16{};
    std::vector<attention_sequence<f8_e4m3>> of_f8{};
    std::vector<attention_sequence<q8_0_block>> of_q8_0{};

    /// Empties what describes a call.
    void clear() noexcept {
        positions.clear();
        held.clear();
        selections.clear();
        tables.clear();
        of_tokens.clear();
    }

    template <class Storage>
    [[nodiscard]] std::vector<attention_sequence<Storage>>& sequences() noexcept {
        if constexpr (std::is_same_v<Storage, float>)
            return of_float;
        else if constexpr (std::is_same_v<Storage, bf16>)
            return of_bf16;
        else if constexpr (std::is_same_v<Storage, f16>)
            return of_f16;
        else if constexpr (std::is_same_v<Storage, f8_e4m3>)
            return of_f8;
        else
            return of_q8_0;
    }
};

}  // namespace larql::detail

#endif
