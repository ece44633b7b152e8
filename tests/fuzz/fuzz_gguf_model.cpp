// SPDX-License-Identifier: Apache-2.0
//
// From GGUF metadata to what attention computes: the models of tests/data with entries and tensors changed. Whatever is
// accepted is finite and in range, and its blocks compute or are refused.
#include <larql/checkpoint.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/error.hpp>

#include "attempt.hpp"
#include "byte_source.hpp"
#include "checked_forms.hpp"
#include "checked_spec.hpp"
#include "gguf_parts.hpp"
#include "replay.hpp"
#include "scratch_folder.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace {

using namespace larql;
using namespace larql::testing;

const std::vector<gguf_parts>& bases() {
    static const std::vector<gguf_parts> found = [] {
        std::vector<std::filesystem::path> paths;
        for (const auto& entry : std::filesystem::directory_iterator(std::string(LARQL_TEST_DATA) + "/gguf"))
            if (entry.path().extension() == ".gguf") paths.push_back(entry.path());
        std::ranges::sort(paths);
        std::vector<gguf_parts> out;
        for (const std::filesystem::path& path : paths) out.push_back(gguf_splitter(read_file(path)).split());
        return out;
    }();
    return found;
}

/// "<architecture>." and a key of larql's tables.
std::string known_key(byte_source& from, const std::string& architecture) {
    static const std::vector<std::string> keys = [] {
        std::vector<std::string> out = {"attention.key_length_mla", "attention.value_length_mla",
                                        "attention.value_length",   "rope.dimension_sections",
                                        "attention.kv_lora_rank",   "attention.q_lora_rank",
                                        "rope.dimension_count",     "expert_gating_func",
                                        "rope.scaling.finetuned",   "nextn_predict_layers"};
        const auto add = [&](const auto& rows) {
            for (const auto& row : rows)
                for (const std::string_view name : row.gguf)
                    if (!name.empty()) out.emplace_back(name);
        };
        add(detail::top_keys);
        add(detail::rope_keys);
        return out;
    }();
    return architecture + '.' + from.pick(keys);
}

void damage_entries(byte_source& from, gguf_parts& parts) {
    const std::size_t at = from.size(0, parts.entries.size() - 1);
    switch (from.number(0, 3)) {
        case 0: {
            const std::string& first = parts.entries.front().value;  // general.architecture
            gguf_parts::entry added{known_key(from, first.substr(std::min<std::size_t>(8, first.size()))), 0, {}};
            std::erase_if(parts.entries, [&](const auto& e) { return e.key == added.key; });
            damage_value(from, added);
            parts.entries.push_back(std::move(added));
            break;
        }
        case 1: parts.entries.erase(parts.entries.begin() + static_cast<std::ptrdiff_t>(at)); break;
        default: damage_value(from, parts.entries[at]);
    }
}

void damage_tensor(byte_source& from, std::vector<gguf_tensor>& tensors) {
    gguf_tensor& t = tensors[from.size(0, tensors.size() - 1)];
    switch (from.number(0, 4)) {
        case 0:
            std::swap(t, tensors.back());
            tensors.pop_back();
            break;
        case 1: t.type = static_cast<std::uint32_t>(from.number(0, 45)); break;
        case 2:
            if (!t.ne.empty()) t.ne[from.size(0, t.ne.size() - 1)] = from.number(0, 300);
            break;
        case 3: t.ne.push_back(from.number(0, 2)); break;
        default: t.name = from.one_in(2) ? "rope_freqs.weight" : "blk.0." + from.text(16);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const scratch_folder folder;
    byte_source from(data, size);
    gguf_parts parts = from.pick(bases());
    const unknown_policy unknown = from.one_in(2) ? unknown_policy::ignore : unknown_policy::refuse;
    for (std::size_t n = from.size(0, 3); n != 0 && !parts.entries.empty(); --n) damage_entries(from, parts);
    for (std::size_t n = from.one_in(2) ? from.size(0, 2) : 0; n != 0 && !parts.tensors.empty(); --n)
        damage_tensor(from, parts.tensors);
    folder.clear();
    const auto path = folder.write("m.gguf", parts.build());
    attempt([&] {
        const checkpoint model = checkpoint::open(path, {.unknown = unknown});
        attempt([&] { (void)model.config_json(); });
        check_model(model.config());
        check_forms(from, model);
    });
    return 0;
}
