// What --help lists and what the README says are the same flags, in both directions and for every command.
#include <gmock/gmock.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "cli/program.hpp"
#include "support/files.hpp"

namespace clip_lora::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Words = std::set<std::string>;

/// The README's sections that a command's flags are in, its own first; "": training, which has no name.
const std::map<std::string, std::vector<std::string>> kSections = {
    {"", {"Flags"}},
    {"compare", {"Compare"}},
    {"datasets", {"Flags"}},
    {"demo", {"The demo"}},
    {"embed", {"Embed", "Predict"}},
    {"export", {"Export"}},
    {"inspect", {"Inspect"}},
    {"predict", {"Predict"}},
    {"report", {"Report"}},
    {"split", {"Your own pictures"}},
    {"sweep", {"Sweep", "Flags"}},
};

/// The README from `## title` on, up to the next section.
std::string section(const std::string& title) {
  const std::string readme = "\n" + read_bytes(CLIP_LORA_SOURCE_DIR "/README.md");
  const std::string heading = "\n## " + title + "\n";
  const std::size_t begin = readme.find(heading);
  if (begin == std::string::npos) return "";
  return readme.substr(begin, readme.find("\n## ", begin + heading.size()) - begin);
}

std::string help_of(const std::string& command) {
  std::vector<std::string> arguments{"--help"};
  if (!command.empty()) arguments.insert(arguments.begin(), command);
  const Outcome outcome = run_program(arguments);
  EXPECT_EQ(outcome.exit_code, 0) << command << ": " << outcome.errors;
  return outcome.output;
}

/// Everything that `pattern`'s first group matches in `text`.
Words all_matches(const std::string& text, const std::string& pattern) {
  const std::regex expression(pattern);
  Words words;
  for (std::sregex_iterator match(text.begin(), text.end(), expression), end; match != end; ++match) {
    words.insert((*match)[1].str());
  }
  return words;
}

/// The lines of `text` that begin with `start`.
std::vector<std::string> lines_with(const std::string& text, const std::string& start) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    if (line.starts_with(start)) lines.push_back(line);
  }
  return lines;
}

/// The flags that a command's help lists: those that its lines begin with.
Words listed_flags(const std::string& help) {
  Words flags;
  for (const std::string& line : lines_with(help, "  -")) {
    flags.merge(all_matches(line.substr(0, line.find(' ', 2)), "--([a-z0-9_]+)"));
  }
  return flags;
}

/// Every flag that a text names.
Words mentioned_flags(const std::string& text) { return all_matches(text, "--([a-z0-9_]+)"); }

/// The flags of a section's tables: those of the first column.
Words tabulated_flags(const std::string& text) {
  Words flags;
  for (const std::string& line : lines_with(text, "| `--")) {
    flags.merge(all_matches(line.substr(0, line.find('|', 1)), "`--([a-z0-9_]+)"));
  }
  return flags;
}

/// Those of `words` that are not among `others`.
Words without(const Words& words, const Words& others) {
  Words rest;
  std::set_difference(words.begin(), words.end(), others.begin(), others.end(),
                      std::inserter(rest, rest.end()));
  return rest;
}

/// Every command that the program's own help names, training as "".
Words commands_of_the_program() {
  const std::string help = help_of("");
  const std::size_t list = help.find("Other commands");
  EXPECT_NE(list, std::string::npos) << help;
  Words commands =
      list == std::string::npos ? Words() : all_matches(help.substr(list), "\n *clip_lora ([a-z]+) ");
  commands.insert("");
  return commands;
}

TEST(Help, EveryCommandHasASectionInTheReadme) {
  Words known;
  for (const auto& [command, titles] : kSections) {
    known.insert(command);
    EXPECT_THAT(section(titles.front()), HasSubstr(command.empty() ? "`--dataset`" : command))
        << titles.front();
  }
  EXPECT_EQ(commands_of_the_program(), known);
}

TEST(Help, EveryFlagIsInTheReadmesSectionOfItsCommand) {
  const Words common{"config", "help", "print_config"};  // said once, of all commands
  EXPECT_THAT(without(common, mentioned_flags(section("Flags"))), IsEmpty());
  for (const auto& [command, titles] : kSections) {
    Words documented = common;
    for (const auto& title : titles) documented.merge(mentioned_flags(section(title)));
    const Words flags = listed_flags(help_of(command));
    EXPECT_THAT(without(common, flags), IsEmpty()) << command;
    EXPECT_THAT(without(flags, documented), IsEmpty())
        << "of 'clip_lora " << command << " --help', looked for in '" << titles.front() << "'";
  }
}

TEST(Help, EveryFlagOfTheReadmesTablesIsThere) {
  std::size_t tabulated = 0;
  for (const auto& [command, titles] : kSections) {
    if (command == "datasets") continue;  // the table of its section is training's
    Words flags = tabulated_flags(section(titles.front()));
    if (command.empty()) {
      EXPECT_EQ(flags.erase("version"), 1U);  // no flag of training: the program's
      EXPECT_EQ(run_program({"--version"}).exit_code, 0);
    }
    tabulated += flags.size();
    EXPECT_THAT(without(flags, listed_flags(help_of(command))), IsEmpty()) << titles.front();
  }
  EXPECT_GT(tabulated, 100U) << "the tables are not where this test looks for them";
}

}  // namespace
}  // namespace clip_lora::testing
