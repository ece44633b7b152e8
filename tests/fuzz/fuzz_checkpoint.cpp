// SPDX-License-Identifier: Apache-2.0
//
// Whole tiny checkpoints of every family, with keys of the configuration and tensors changed: each block computes in
// every form that it has, through caches too, to the same numbers, or is refused.
#include <larql/checkpoint.hpp>
#include <larql/error.hpp>

#include "attempt.hpp"
#include "byte_source.hpp"
#include "checked_forms.hpp"
#include "checked_spec.hpp"
#include "damaged_json.hpp"
#include "replay.hpp"
#include "scratch_folder.hpp"
#include "stored_tensors.hpp"

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace {

using namespace larql;
using namespace larql::testing;

struct base {
    std::filesystem::path folder;
    nlohmann::json config;
    std::vector<stored_tensor> tensors;
};

/// The checkpoints of one file in tests/data/hf, read when first used.
const base& pick_base(byte_source& from) {
    static const std::vector<std::filesystem::path> folders = cases_with("model.safetensors");
    static std::vector<base> bases(folders.size());
    const std::size_t at = from.size(0, folders.size() - 1);
    base& chosen = bases[at];
    if (chosen.tensors.empty()) {
        const std::filesystem::path config = folders[at] / "config.json";
        const bool has = std::filesystem::exists(config);
        chosen = {folders[at], nlohmann::json::parse(read_file(has ? config : folders[at] / "params.json")),
                  read_tensors(folders[at] / "model.safetensors")};
    }
    return chosen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const scratch_folder folder;
    byte_source from(data, size);
    const base& chosen = pick_base(from);
    nlohmann::json config = chosen.config;
    std::vector<stored_tensor> tensors = chosen.tensors;
    const unknown_policy unknown = from.one_in(2) ? unknown_policy::ignore : unknown_policy::refuse;
    for (std::size_t n = from.size(0, 2); n != 0; --n) damage_object(from, config);
    for (std::size_t n = from.one_in(2) ? from.size(0, 2) : 0; n != 0; --n) damage_tensors(from, tensors);
    folder.clear();
    const bool hf = std::filesystem::exists(chosen.folder / "config.json");
    folder.write(hf ? "config.json" : "params.json", text_of(config));
    folder.write("model.safetensors", safetensors_of(tensors));
    attempt([&] {
        const checkpoint model = checkpoint::open(folder.path(), {.unknown = unknown});
        attempt([&] { (void)model.dialect(); });
        check_model(model.config());
        check_forms(from, model);
    });
    return 0;
}
