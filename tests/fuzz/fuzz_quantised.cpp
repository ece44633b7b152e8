// SPDX-License-Identifier: Apache-2.0
//
// Every scheme of quantization_config: a checkpoint of each, with parts and keys changed. What opens gives the same
// rows in pieces and at once, from the file, from its map and from memory, where a read beyond the bytes is seen.
#include <larql/error.hpp>
#include <larql/linear.hpp>
#include <larql/quantization_config.hpp>
#include <larql/safetensors.hpp>
#include <larql/weight_reader.hpp>

#include "attempt.hpp"
#include "byte_source.hpp"
#include "damaged_json.hpp"
#include "replay.hpp"
#include "scratch_folder.hpp"
#include "stored_tensors.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace {

using namespace larql;
using namespace larql::testing;

struct scheme {
    std::vector<stored_tensor> tensors;
    nlohmann::json config;
};

/// The checkpoints of tests/data/quant.
const std::vector<scheme>& schemes() {
    static const std::vector<scheme> found = [] {
        std::vector<std::filesystem::path> configs;
        for (const auto& entry : std::filesystem::directory_iterator(std::string(LARQL_TEST_DATA) + "/quant"))
            if (entry.path().string().ends_with(".config.json")) configs.push_back(entry.path());
        std::ranges::sort(configs);
        std::vector<scheme> out;
        for (const std::filesystem::path& config : configs) {
            std::string file = config.string();
            file.replace(file.size() - 12, 12, ".safetensors");
            out.push_back({read_tensors(file), nlohmann::json::parse(read_file(config))});
        }
        return out;
    }();
    return found;
}

constexpr const char* methods[] = {"fp8", "fbgemm_fp8",   "mxfp8", "mistral", "compressed-tensors", "modelopt",
                                   "awq", "modelopt_fp4", "mxfp4", "gptq",    "auto-round",         "bitsandbytes"};
constexpr const char* formats[] = {"dense",           "naive-quantized",      "int-quantized",
                                   "float-quantized", "pack-quantized",       "mxfp4-pack-quantized",
                                   "mixed-precision", "nvfp4-pack-quantized", "mxfp8-quantized"};

void damage_config(byte_source& from, nlohmann::json& config) {
    nlohmann::json& q = config["quantization_config"];
    if (!q.is_object()) return damage_object(from, config);
    switch (from.number(0, 6)) {
        case 0: q["quant_method"] = from.pick(methods); break;
        case 1: q["format"] = from.pick(formats); break;
        case 2: q["bits"] = from.number(0, 9); break;
        case 3: q["group_size"] = static_cast<std::int64_t>(from.number(0, 130)) - 1; break;
        case 4: q["weight_block_size"] = {from.number(0, 130), from.number(0, 130)}; break;
        case 5: q["sym"] = from.one_in(2); break;
        default: damage_object(from, q);
    }
}

using rows = std::unique_ptr<float[]>;

rows read_all(const weight& w, std::uint64_t step) {
    const auto columns = static_cast<std::size_t>(w.columns());
    auto out = std::make_unique<float[]>(static_cast<std::size_t>(w.rows()) * columns);
    for (std::uint64_t row = 0; row < w.rows(); row += step) {
        const std::uint64_t end = std::min(w.rows(), row + step);
        w.read_rows(row, end, out.get() + static_cast<std::size_t>(row) * columns, columns);
    }
    return out;
}

void check_weight(byte_source& from, const weight& w) {
    constexpr std::uint64_t most_elements = 100'000;
    if (w.rows() == 0 || w.columns() == 0) {
        float none = 0;
        return w.read_rows(0, w.rows(), &none, static_cast<std::size_t>(w.columns()));
    }
    if (w.columns() > most_elements || w.rows() > most_elements / w.columns()) return;
    const auto count = static_cast<std::size_t>(w.rows() * w.columns());
    const rows whole = read_all(w, w.rows());
    const auto same = [&](const rows& other, const char* what) {
        for (std::size_t i = 0; i < count; ++i) {
            const float a = whole[i], b = other[i];  // one NaN is as good as another
            require(std::memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b)),
                    std::string(w.scheme()) + ": " + what + " changes number " + std::to_string(i) + " of " +
                        printable(w.name()) + ": " + std::to_string(a) + " and " + std::to_string(b));
        }
    };
    // At least an eighth at once: a read is some system calls, and there are hundreds of rows.
    const auto step = [&] { return from.number(w.rows() / 8 + 1, w.rows()); };
    same(read_all(w, step()), "reading in pieces");
    constexpr weight_storage storages[] = {weight_storage::copied, weight_storage::mapped, weight_storage::decoded};
    const weight other = w.in(from.pick(storages));
    same(read_all(other, step()), "where it stands");
    const std::size_t tokens = from.size(1, 3);
    const std::vector<float> x(tokens * static_cast<std::size_t>(w.columns()), 0.5F);
    std::vector<float> y(tokens * static_cast<std::size_t>(w.rows()));
    linear(matrix_of(other), x.data(), tokens, y.data());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const scratch_folder folder;
    byte_source from(data, size);
    const scheme& base = from.pick(schemes());
    std::vector<stored_tensor> tensors = base.tensors;
    nlohmann::json config = base.config;
    for (std::size_t n = from.size(0, 3); n != 0; --n) damage_tensors(from, tensors);
    for (std::size_t n = from.size(0, 2); n != 0; --n) damage_config(from, config);
    folder.clear();
    const auto path = folder.write("m.safetensors", safetensors_of(tensors));
    attempt([&] {
        const auto file = safetensors_file::open(path);
        const weight_reader reader(file, quantization_config::find_in(config));
        std::set<std::string> names;
        for (const std::string& name : reader.names()) names.insert(name);
        for (const stored_tensor& t : tensors) names.insert(t.name);
        for (const std::string& name : names)
            attempt([&] {
                if (const auto w = reader.find(name)) check_weight(from, *w);
            });
    });
    return 0;
}
