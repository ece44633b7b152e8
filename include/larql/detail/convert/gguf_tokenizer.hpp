// SPDX-License-Identifier: Apache-2.0
//
// The tokenizer beside a model of transformers, as GGUF's metadata have it: byte-level BPE of a tokenizer.json, or a
// SentencePiece model. The files themselves go along as texts, so that the way back loses nothing.
// Source: llama.cpp's conversion/base.py (get_vocab_base, _create_vocab_sentencepiece), gguf-py/gguf/vocab.py
// (SpecialVocab), src/llama-vocab.cpp (what it splits text by, under each name).
#ifndef LARQL_DETAIL_CONVERT_GGUF_TOKENIZER_HPP
#define LARQL_DETAIL_CONVERT_GGUF_TOKENIZER_HPP

#include <larql/checkpoint.hpp>
#include <larql/detail/checkpoint/files.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/gguf/metadata.hpp>
#include <larql/detail/io/file_names.hpp>
#include <larql/detail/io/json.hpp>
#include <larql/detail/model/json_wrapper.hpp>
#include <larql/error.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace larql::detail {

/// llama.cpp's names of what splits a text before byte pairs are joined, by the patterns of tokenizer.json.
struct splitting_row {
    std::string_view name;
    std::string_view pattern;  ///< one of the patterns
    std::size_t patterns;      ///< how many there are
};
inline constexpr splitting_row splittings[] = {
    {"llama-bpe",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     1},
    {"qwen2",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     1},
    {"deepseek-v3", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", 3},
    {"deepseek-llm", R"(\p{N}+)", 6},
    {"deepseek-coder", R"(\p{N})", 5},
};

/// Fills in the tokenizer.
class gguf_tokenizer {
public:
    gguf_tokenizer(const checkpoint& source, gguf_metadata& out) : m_source(source), m_out(out) {
        m_folder = path_from_text(source.shard_path(0)).parent_path();
        if (m_folder.empty()) m_folder = ".";
    }

    /// @return  the files of a tokenizer that larql does not read, or ""
    /// @throws error errc::unsupported_architecture for a tokenizer that larql does not know how to state
    [[nodiscard]] std::string add() {
        const nlohmann::json config = m_source.config_json();
        const nlohmann::json& text = *find_text_part(config).object;
        m_size = text.value("vocab_size", std::size_t{0});
        m_settings = parsed("tokenizer_config.json");
        if (!m_settings.is_object()) m_settings = nlohmann::json::object();
        const nlohmann::json tokenizer = parsed("tokenizer.json");
        if (there("tokenizer.model"))
            add_sentencepiece();
        else if (!tokenizer.is_null())
            add_bpe(tokenizer, config);
        else
            m_out.set("tokenizer.ggml.model", "none");
        if (m_numbers.empty()) return unread();
        add_special(text);
        for (const auto& [name, key] : {std::pair{"tokenizer.json", "tokenizer.huggingface.json"},
                                        std::pair{"chat_template.jinja", "tokenizer.chat_template"}})
            if (there(name)) m_out.set(key, read_text_file(m_folder / name));
        const auto chat = m_settings.find("chat_template");
        if (!m_out.contains("tokenizer.chat_template") && chat != m_settings.end() && chat->is_string())
            m_out.set("tokenizer.chat_template", chat->get<std::string>());
        return {};
    }

private:
    enum token_type : std::int32_t { normal = 1, unknown, control, user_defined, unused, byte };
    struct token {
        std::string text;
        std::int32_t type = unused;
        float score = -1000.0F;
    };

    [[nodiscard]] bool there(const char* name) const {
        std::error_code ignored;
        return std::filesystem::is_regular_file(m_folder / name, ignored);
    }
    /// Files of tokenizers in other formats, by their names.
    [[nodiscard]] std::string unread() const {
        constexpr std::string_view words[] = {"tok", "tekken", "vocab", "merges", "spiece", "sentencepiece"};
        constexpr std::string_view others[] = {"tokenizer_config.json", "special_tokens_map.json"};
        std::string files;
        for (const std::string& name : names_in(m_folder)) {
            const bool named =
                std::ranges::any_of(words, [&](std::string_view word) { return name.find(word) != name.npos; });
            if (!named || name.ends_with(".py") || std::ranges::find(others, name) != std::end(others)) continue;
            files += (files.empty() ? "" : ", ") + name;
        }
        return files;
    }
    /// A JSON file of the folder; null if it is not there.
    [[nodiscard]] nlohmann::json parsed(const char* name) const {
        if (!there(name)) return nullptr;
        return parse_json(read_text_file(m_folder / name), {.file = path_text(m_folder / name)}, {});
    }
    [[noreturn]] void refuse(const char* file, const std::string& why) const {
        fail(errc::unsupported_architecture, why, {.file = path_text(m_folder / file), .subject = "tokenizer"});
    }

    void add_bpe(const nlohmann::json& tokenizer, const nlohmann::json& config) {
        const nlohmann::json model = tokenizer.value("model", nlohmann::json::object());
        if (model.value("type", "") != "BPE" || !model.contains("vocab") || !model["vocab"].is_object())
            refuse("tokenizer.json", "expected a model of type BPE, got \"" + model.value("type", "") + "\"");
        std::vector<token> tokens(m_size);
        const auto place = [&](const nlohmann::json& id, const std::string& text, std::int32_t type) {
            if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= std::max<std::size_t>(m_size, 1))
                refuse("tokenizer.json",
                       concat({"a token's number is not below vocab_size: expected less than ", m_size}));
            tokens[id.get<std::size_t>()] = {text, type, 0.0F};
            m_numbers[text] = id.get<std::uint32_t>();
        };
        const nlohmann::json& vocabulary = model["vocab"];
        for (const auto& [text, id] : vocabulary.items()) place(id, text, normal);
        const nlohmann::json all_added = tokenizer.value("added_tokens", nlohmann::json::array());
        for (const nlohmann::json& added : all_added) {
            const std::string text = added.value("content", "");
            place(added.value("id", nlohmann::json()), text,
                  added.value("special", false) || looks_special(text) ? control : user_defined);
        }
        for (std::size_t i = 0; i < tokens.size(); ++i)
            if (tokens[i].text.empty()) tokens[i] = {concat({"[PAD", i, "]"}), unused, 0.0F};
        m_out.set("tokenizer.ggml.model", "gpt2");
        m_out.set("tokenizer.ggml.pre", splitting_of(tokenizer, config));
        set_tokens(tokens, false);
        std::vector<std::string> merges;
        const nlohmann::json all_merges = model.value("merges", nlohmann::json::array());
        for (const nlohmann::json& merge : all_merges)
            merges.push_back(merge.is_string() ? merge.get<std::string>() : joined_pair(merge));
        m_out.set("tokenizer.ggml.merges", merges);
    }
    [[nodiscard]] std::string joined_pair(const nlohmann::json& pair) const {
        if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string())
            refuse("tokenizer.json", "expected merges of two texts");
        std::string joined;
        for (const nlohmann::json& half : pair) {
            if (!joined.empty()) joined += ' ';
            for (const char c : half.get<std::string>())  // a space within a token, as bytes are written
                c == ' ' ? joined += "\u0120" : joined += c;
        }
        return joined;
    }

    /// What splits the text, under llama.cpp's name. A caller may state it in the configuration as `tokenizer_pre`.
    [[nodiscard]] std::string splitting_of(const nlohmann::json& tokenizer, const nlohmann::json& config) const {
        if (const auto stated = config.find("tokenizer_pre"); stated != config.end() && stated->is_string())
            return stated->get<std::string>();
        if (const std::string_view known = m_source.family().gguf_output.splitting; !known.empty())
            return std::string(known);
        std::vector<std::string> patterns;
        bool by_level = false;
        collect_patterns(tokenizer.value("pre_tokenizer", nlohmann::json()), patterns, by_level);
        if (patterns.empty() && by_level) return "gpt-2";
        for (const splitting_row& row : splittings)
            if (patterns.size() == row.patterns && std::ranges::find(patterns, row.pattern) != patterns.end())
                return std::string(row.name);
        refuse("tokenizer.json",
               "larql does not know llama.cpp's name for what splits the text here: state it with --config as "
               "\"tokenizer_pre\"");
    }
    static void collect_patterns(const nlohmann::json& node, std::vector<std::string>& patterns, bool& by_level) {
        if (!node.is_object()) return;
        const std::string type = node.value("type", "");
        const nlohmann::json inner = node.value("pretokenizers", nlohmann::json::array());
        for (const nlohmann::json& one : inner) collect_patterns(one, patterns, by_level);
        if (type == "Split") {
            const nlohmann::json pattern = node.value("pattern", nlohmann::json::object());
            patterns.push_back(pattern.is_object() ? pattern.value("Regex", pattern.value("String", "")) : "");
        }
        if (type == "ByteLevel" && node.value("use_regex", true)) by_level = true;
    }

    /// A SentencePiece model: a message of pieces, each a text, a score and a type.
    void add_sentencepiece() {
        const std::string data = read_text_file(m_folder / "tokenizer.model");
        std::vector<token> tokens;
        protobuf(data, [&](std::uint64_t field, std::string_view piece, std::uint64_t) {
            if (field != 1) return;
            token one{"", normal, 0.0F};
            protobuf(piece, [&](std::uint64_t part, std::string_view text, std::uint64_t number) {
                if (part == 1) one.text = text;
                if (part == 2) one.score = std::bit_cast<float>(static_cast<std::uint32_t>(number));
                if (part == 3) one.type = static_cast<std::int32_t>(number);
            });
            tokens.push_back(std::move(one));
        });
        if (tokens.size() > std::max<std::size_t>(m_size, 1))
            refuse("tokenizer.model",
                   concat({"expected at most vocab_size = ", m_size, " pieces, got ", tokens.size()}));
        const std::size_t pieces = tokens.size();
        tokens.resize(m_size);
        const nlohmann::json all_added = m_settings.value("added_tokens_decoder", nlohmann::json::object());
        for (const auto& [id, added] : all_added.items()) {
            std::size_t number = 0;
            (void)std::from_chars(id.data(), id.data() + id.size(), number);
            if (number < pieces || number >= tokens.size()) continue;
            tokens[number] = {added.value("content", ""), added.value("special", false) ? control : user_defined,
                              -1000.0F};
        }
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            if (i >= pieces && tokens[i].text.empty()) tokens[i].text = concat({"[PAD", i, "]"});
            m_numbers[tokens[i].text] = static_cast<std::uint32_t>(i);
        }
        m_out.set("tokenizer.ggml.model", "llama");
        m_out.set("tokenizer.ggml.pre", "default");
        set_tokens(tokens, true);
    }

    /// Calls `use(field, bytes, number)` for the fields of a protocol buffer.
    template <class Use>
    void protobuf(std::string_view data, const Use& use) const {
        const auto number = [&] {
            std::uint64_t value = 0;
            for (int shift = 0; !data.empty() && shift < 64; shift += 7) {
                const auto bits = static_cast<unsigned char>(data.front());
                data.remove_prefix(1);
                value |= static_cast<std::uint64_t>(bits & 0x7f) << shift;
                if ((bits & 0x80) == 0) return value;
            }
            refuse("tokenizer.model", "not a SentencePiece model: a number is cut off");
        };
        const auto take = [&](std::uint64_t size) {
            if (size > data.size()) refuse("tokenizer.model", "not a SentencePiece model: a field is cut off");
            const std::string_view taken = data.substr(0, static_cast<std::size_t>(size));
            data.remove_prefix(taken.size());
            return taken;
        };
        while (!data.empty()) {
            const std::uint64_t key = number();
            switch (key & 7) {
                case 0: use(key >> 3, std::string_view(), number()); break;
                case 1: (void)take(8); break;
                case 2: use(key >> 3, take(number()), 0); break;
                case 5: {
                    const std::string_view bytes = take(4);
                    use(key >> 3, std::string_view(),
                        load_little_endian<std::uint32_t>(reinterpret_cast<const std::byte*>(bytes.data())));
                    break;
                }
                default: refuse("tokenizer.model", "not a SentencePiece model: an unknown kind of field");
            }
        }
    }

    void set_tokens(const std::vector<token>& tokens, bool scored) {
        std::vector<std::string> texts;
        std::vector<std::int32_t> types;
        std::vector<float> scores;
        for (const token& one : tokens) {
            texts.push_back(one.text);
            types.push_back(one.type);
            scores.push_back(one.score);
        }
        m_out.set("tokenizer.ggml.tokens", texts);
        if (scored) m_out.set("tokenizer.ggml.scores", scores);
        m_out.set("tokenizer.ggml.token_type", types);
    }

    /// Tokens with a meaning, by the texts that tokenizer_config.json has for them or the numbers of config.json.
    void add_special(const nlohmann::json& text) {
        for (const std::string name : {"bos", "eos", "unk", "sep", "pad", "mask", "cls"}) {
            const auto stated = m_settings.find(name + "_token");
            std::string content;
            if (stated != m_settings.end() && stated->is_string()) content = stated->get<std::string>();
            if (stated != m_settings.end() && stated->is_object()) content = stated->value("content", "");
            const auto number = text.find(name + "_token_id");
            // GGUF calls the unknown token and the separator by other words.
            const std::string key = "tokenizer.ggml." +
                                    (name == "unk"   ? std::string("unknown")
                                     : name == "sep" ? std::string("seperator")
                                     : name == "pad" ? std::string("padding")
                                                     : name) +
                                    "_token_id";
            if (const auto found = m_numbers.find(content); !content.empty() && found != m_numbers.end())
                m_out.set(key, found->second);
            else if (number != text.end() && number->is_number_unsigned())
                m_out.set(key, number->get<std::uint32_t>());
        }
        for (const token_text& row : m_source.family().gguf_output.tokens) {
            const std::string key = "tokenizer.ggml." + std::string(row.key) + "_token_id";
            const auto found = m_numbers.find(std::string(row.text));
            if (found != m_numbers.end() && !m_out.contains(key)) m_out.set(key, found->second);
        }
        for (const char* flag : {"add_bos_token", "add_eos_token"})
            if (const auto stated = m_settings.find(flag); stated != m_settings.end() && stated->is_boolean())
                m_out.set("tokenizer.ggml." + std::string(flag), stated->get<bool>());
    }

    [[nodiscard]] static bool looks_special(std::string_view text) {
        const auto between = [&](std::string_view begin, std::string_view end) {
            return text.starts_with(begin) && text.ends_with(end);
        };
        return text == "<pad>" || text == "<mask>" || between("<|", "|>") || between("<\uff5c", "\uff5c>") ||
               between("<unused", ">");
    }

    const checkpoint& m_source;
    gguf_metadata& m_out;
    std::filesystem::path m_folder;
    nlohmann::json m_settings;
    std::size_t m_size = 0;
    std::map<std::string, std::uint32_t> m_numbers;
};

/// @return  the files of a tokenizer that larql does not read, or ""
inline std::string add_tokenizer(const checkpoint& source, gguf_metadata& out) {
    return gguf_tokenizer(source, out).add();
}

}  // namespace larql::detail

#endif
