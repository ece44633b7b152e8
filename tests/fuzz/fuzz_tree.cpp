// SPDX-License-Identifier: Apache-2.0
//
// Several files out of one input, byte for byte: an index with its shards, also in a folder below, sets of GGUF shards,
// config.json and params.json, a vindex. The input is [which name][length, 2 bytes][bytes], again and again.
#include <larql/checkpoint.hpp>
#include <larql/error.hpp>

#include "attempt.hpp"
#include "byte_source.hpp"
#include "replay.hpp"
#include "scratch_folder.hpp"

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

namespace {

using namespace larql;
using namespace larql::testing;

constexpr const char* names[] = {"model.safetensors.index.json",
                                 "model-00001-of-00002.safetensors",
                                 "model-00002-of-00002.safetensors",
                                 "config.json",
                                 "a-00001-of-00002.gguf",
                                 "a-00002-of-00002.gguf",
                                 "model.safetensors",
                                 "a.gguf",
                                 "sub/model-00001-of-00002.safetensors",
                                 "params.json",
                                 "index.json",
                                 "weight_manifest.json",
                                 "attn_weights.bin"};

/// Opens a path and looks at all that it says.
void look(const std::filesystem::path& path) {
    attempt([&] {
        const checkpoint model = checkpoint::open(path);
        (void)model.find_config();
        (void)model.paths();
        attempt([&] { (void)model.dialect(); });
        attempt([&] { (void)model.config_json(); });
        for (const tensor_info& info : model.tensors())
            require(model.bytes(info).size() == info.size_bytes, "a tensor of another length than its info");
        for (const std::string& name : model.weights().names())
            attempt([&] {
                const weight w = model.weights().at(name);
                if (w.columns() == 0 || w.columns() > 10'000 || w.rows() == 0) return;
                std::vector<float> row(static_cast<std::size_t>(w.columns()));
                w.read_rows(w.rows() - 1, w.rows(), row.data(), row.size());
            });
    });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const scratch_folder folder;
    byte_source from(data, size);
    folder.clear();
    std::set<std::filesystem::path> made;
    while (!from.empty() && made.size() < 8) {
        const std::string name = from.pick(names);
        const std::string bytes = from.take(from.size(0, 65535));
        made.insert(folder.write(name, bytes));
    }
    look(folder.path());
    for (const std::filesystem::path& path : made) look(path);
    return 0;
}
