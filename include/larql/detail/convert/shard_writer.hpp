// SPDX-License-Identifier: Apache-2.0
//
// A folder of safetensors: tensors spread over files of bounded size, the index, and config.json.
#ifndef LARQL_DETAIL_CONVERT_SHARD_WRITER_HPP
#define LARQL_DETAIL_CONVERT_SHARD_WRITER_HPP

#include <larql/detail/convert/conversion_job.hpp>
#include <larql/detail/io/output_file.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>
#include <larql/ggml_blocks.hpp>
#include <larql/safetensors_writer.hpp>

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <vector>

namespace larql::detail {

/// Receives the results of conversion jobs. Nothing has its final name before `commit`.
class shard_writer final : public tensor_sink {
public:
    /// @param inputs       files that are being read; none of them may be an output
    /// @param shard_bytes  tensor data per file; a larger tensor has a file of its own
    shard_writer(std::filesystem::path folder, std::vector<std::filesystem::path> inputs,
                 const std::vector<conversion_job>& jobs, std::uint64_t shard_bytes, bool replace)
        : m_folder(std::move(folder)), m_options{.replace = replace, .inputs = std::move(inputs)} {
        std::error_code problem;
        std::filesystem::create_directories(m_folder, problem);
        if (problem) fail(errc::io, "cannot create the folder: " + problem.message(), {.file = path_text(m_folder)});
        refuse_existing();
        for (const conversion_job& job : jobs)
            for (const planned_tensor& tensor : job.tensors) assign(tensor, shard_bytes);
        open_shards();
    }

    void bytes(const std::string& name, std::span<const std::byte> data) override { shard_of(name).write(name, data); }

    void numbers(const std::string& name, std::span<const float> values) override {
        const dtype type = m_types.at(name);
        m_buffer.resize(values.size() * traits_of(type).block_bytes);
        const quantize_report report = quantize(type, values, m_buffer);
        if (report.overflowed != 0)
            fail(errc::bad_value,
                 std::to_string(report.overflowed) + " numbers are beyond the range of " +
                     std::string(to_string(type)) + "; BF16 and F32 hold them",
                 {.file = path_text(m_folder), .subject = name});
        shard_of(name).write(name, m_buffer);
    }

    /// Gives every file its name: tensors, then the index, then config.json, without which there is no model.
    void commit(const nlohmann::json& config) {
        if (m_options.replace) {
            std::error_code ignored;
            std::filesystem::remove(m_folder / "config.json", ignored);
            std::filesystem::remove(m_folder / index_name, ignored);
            std::filesystem::remove(m_folder / single_name, ignored);
        }
        for (const auto& writer : m_writers) writer->commit();
        if (m_writers.size() > 1) write_text(index_name, index().dump(2) + "\n");
        write_text("config.json", config.dump(2) + "\n");
    }

private:
    static constexpr const char* index_name = "model.safetensors.index.json";
    static constexpr const char* single_name = "model.safetensors";

    void refuse_existing() const {
        for (const std::filesystem::path& input : m_options.inputs) {
            std::error_code ignored;
            if (std::filesystem::equivalent(m_folder, input.has_parent_path() ? input.parent_path() : ".", ignored))
                fail(errc::already_exists, "the output folder is the folder of the input",
                     {.file = path_text(m_folder)});
        }
        if (m_options.replace) return;
        for (const auto& entry : std::filesystem::directory_iterator(m_folder)) {
            const std::filesystem::path name = entry.path().filename();
            if (name == "config.json" || name == index_name || name.extension() == ".safetensors")
                fail(errc::already_exists, "a model is already there, and replacing it was not asked for",
                     {.file = path_text(entry.path())});
        }
    }

    void assign(const planned_tensor& tensor, std::uint64_t shard_bytes) {
        std::uint64_t size = traits_of(tensor.type).block_bytes;
        for (const std::uint64_t extent : tensor.shape) size *= extent;
        size /= traits_of(tensor.type).block_elements;
        if (m_plan.empty() || (m_filled != 0 && size > shard_bytes - std::min(shard_bytes, m_filled))) {
            m_plan.emplace_back();
            m_filled = 0;
        }
        m_filled += size;
        m_total += size;
        if (!m_shards.emplace(tensor.name, m_plan.size() - 1).second)
            fail(errc::duplicate_name, "the conversion makes this tensor twice",
                 {.file = path_text(m_folder), .subject = tensor.name});
        m_types.emplace(tensor.name, tensor.type);
        m_plan.back().push_back(&tensor);
    }

    [[nodiscard]] std::string shard_name(std::size_t index) const {
        if (m_plan.size() == 1) return single_name;
        char text[64];
        std::snprintf(text, sizeof text, "model-%05zu-of-%05zu.safetensors", index + 1, m_plan.size());
        return text;
    }

    void open_shards() {
        for (std::size_t i = 0; i < m_plan.size(); ++i) {
            m_writers.push_back(std::make_unique<safetensors_writer>(m_folder / shard_name(i), m_options));
            m_writers.back()->set_metadata("format", "pt");
            for (const planned_tensor* tensor : m_plan[i])
                m_writers.back()->add_tensor(tensor->name, tensor->type, tensor->shape);
        }
    }

    [[nodiscard]] safetensors_writer& shard_of(const std::string& name) { return *m_writers[m_shards.at(name)]; }

    [[nodiscard]] nlohmann::json index() const {
        nlohmann::json map = nlohmann::json::object();
        for (const auto& [name, shard] : m_shards) map[name] = shard_name(shard);
        return {{"metadata", {{"total_size", m_total}}}, {"weight_map", map}};
    }

    void write_text(const char* name, const std::string& text) const {
        output_file file(m_folder / name, m_options);
        file.write_at(0, std::as_bytes(std::span(text)));
        file.finish(text.size());
        file.publish();
    }

    std::filesystem::path m_folder;
    output_options m_options;
    std::vector<std::vector<const planned_tensor*>> m_plan;
    std::map<std::string, std::size_t> m_shards;
    std::map<std::string, dtype> m_types;
    std::vector<std::unique_ptr<safetensors_writer>> m_writers;
    std::vector<std::byte> m_buffer;
    std::uint64_t m_filled = 0;
    std::uint64_t m_total = 0;
};

}  // namespace larql::detail

#endif
