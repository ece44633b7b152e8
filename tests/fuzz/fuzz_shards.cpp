// SPDX-License-Identifier: Apache-2.0
//
// Sets of shards, GGUF or safetensors with an index, that are right or have a defect: what is right opens from every
// shard and gives every tensor's bytes; what has a defect does so too, or is refused.
#include <larql/error.hpp>
#include <larql/gguf.hpp>
#include <larql/safetensors.hpp>
#include <support/gguf_builder.hpp>
#include <support/safetensors_builder.hpp>

#include "attempt.hpp"
#include "byte_source.hpp"
#include "replay.hpp"
#include "scratch_folder.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace {

using namespace larql;
using namespace larql::testing;

std::string shard_name(const std::string& stem, std::size_t number, std::size_t count, const char* ending) {
    char text[64];
    std::snprintf(text, sizeof text, "-%05zu-of-%05zu", number, count);
    return stem + text + ending;
}

struct made_set {
    std::vector<std::filesystem::path> files;  // any of which names the set
    std::map<std::string, std::string> tensors;
    bool defect = false;
};

class set_builder {
public:
    set_builder(byte_source& from, const scratch_folder& folder) : m_from(from), m_folder(folder) {
        m_count = from.size(1, 4);
        for (std::size_t n = from.size(0, 6), i = 0; i < n; ++i) {
            const std::string bytes(4 * from.size(0, 9), static_cast<char>('a' + i));
            m_tensors.push_back({"t" + std::to_string(i), bytes, from.size(0, m_count - 1)});
        }
        for (const auto& t : m_tensors) m_set.tensors[t.name] = t.bytes;
        if (!m_tensors.empty() && defect()) m_tensors.push_back({m_tensors[0].name, "abcd", from.size(0, m_count - 1)});
    }

    made_set gguf() {
        for (std::size_t i = 0; i < m_count; ++i) {
            gguf_builder file(m_from.one_in(6) ? 2 : 3);
            if (i == 0) file.kv_string("general.architecture", "x");
            const std::size_t number = defect() ? m_from.size(0, 5) : i, count = defect() ? m_from.size(0, 5) : m_count;
            const std::size_t tensors = defect() ? m_from.size(0, 9) : m_tensors.size();
            const bool alone = m_count == 1 && m_from.one_in(2);
            if (!alone)
                file.split(static_cast<std::uint16_t>(number), static_cast<std::uint16_t>(count),
                           static_cast<std::int32_t>(tensors));
            for (const auto& t : m_tensors)
                if (t.shard == i) file.tensor({.name = t.name, .ne = {t.bytes.size() / 4}, .data = t.bytes});
            put(i, file.build(), ".gguf");
        }
        return m_set;
    }

    made_set safetensors() {
        std::string map;
        for (const auto& t : m_tensors) {
            if (map.find('"' + t.name + '"') != std::string::npos) continue;
            const std::size_t shard = defect() ? m_from.size(0, m_count) : t.shard;
            std::string file = shard_name("model", shard + 1, m_count, ".safetensors");
            if (defect()) file = m_from.one_in(2) ? "../" + file : m_from.one_in(2) ? "/" + file : "./sub/../" + file;
            map += (map.empty() ? "\"" : ",\"") + t.name + "\":\"" + file + '"';
        }
        if (defect()) map += std::string(map.empty() ? "" : ",") + "\"more\":\"model-00001-of-00001.safetensors\"";
        for (std::size_t i = 0; i < m_count; ++i) {
            safetensors_builder file;
            for (const auto& t : m_tensors)
                if (t.shard == i) file.tensor(t.name, "F32", "[" + std::to_string(t.bytes.size() / 4) + "]", t.bytes);
            put(i, file.build(), ".safetensors");
        }
        m_set.files = {m_folder.write("model.safetensors.index.json", "{\"weight_map\":{" + map + "}}")};
        // An index that names no shard leaves nothing to open.
        if (m_tensors.empty()) m_set.defect = true;
        return m_set;
    }

private:
    struct shard_tensor {
        std::string name, bytes;
        std::size_t shard;
    };

    bool defect() {
        const bool there = m_from.one_in(24);
        m_set.defect = m_set.defect || there;
        return there;
    }

    void put(std::size_t i, std::string bytes, const char* ending) {
        if (defect()) bytes.resize(m_from.size(0, bytes.size()));
        if (defect()) return;
        const std::size_t number = defect() ? m_from.size(0, 6) : i + 1, count = defect() ? m_from.size(0, 6) : m_count;
        const auto path = m_folder.write(shard_name("model", number, count, ending), bytes);
        m_set.files.push_back(path);
    }

    byte_source& m_from;
    const scratch_folder& m_folder;
    std::size_t m_count = 1;
    std::vector<shard_tensor> m_tensors;
    made_set m_set;
};

template <class File>
void check(const std::filesystem::path& path, const made_set& set) {
    const bool opened = attempt([&] {
        const File file = File::open(path);
        for (const tensor_info& info : file.tensors()) {
            const auto bytes = file.bytes(info);
            if (set.defect) continue;
            const std::string& want = set.tensors.at(std::string(info.name));
            require(bytes.size() == want.size() &&
                        (want.empty() || std::memcmp(bytes.data(), want.data(), want.size()) == 0),
                    "other bytes than were written");
        }
        if (!set.defect) require(file.tensors().size() == set.tensors.size(), "another number of tensors");
    });
    require(opened || set.defect, "a set of shards without a defect is refused: " + path.string());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const scratch_folder folder;
    byte_source from(data, size);
    folder.clear();
    const bool gguf = from.one_in(2);
    set_builder builder(from, folder);
    made_set set = gguf ? builder.gguf() : builder.safetensors();
    set.files.push_back(folder.path());
    for (const std::filesystem::path& path : set.files)
        gguf ? check<gguf_file>(path, set) : check<safetensors_file>(path, set);
    return 0;
}
