#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/image/codec.hpp"
#include "support/files.hpp"
#include "support/pictures.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"

namespace clip_lora::image {
namespace {

using clip_lora::testing::crc32;
using clip_lora::testing::from_hex;
using clip_lora::testing::message_of;
using clip_lora::testing::write_bytes;
using ::testing::HasSubstr;

// Two JPEGs of 11 x 9 pixels that libjpeg wrote with the inks (17 x + 9 y + 53 ink) mod 256: CMYK, and
// Adobe's YCCK, progressive with halved chroma.
constexpr auto kCmyk =
    "ffd8ffee000e41646f626500640000000000ffdb0043000d090a0b0a080d0b0a0b0e0e0d0f13201513121213271c1e17202e"
    "2931302e292d2c333a4a3e333646372c2d405741464c4e525352323e5a615a50604a51524fffc00014080009000b04431100"
    "4d11005911004b1100ffc400190000020301000000000000000000000000050700030604ffc4002d10000102040306050500"
    "00000000000000010203000405110621311222323341711314233642617483b2b3ffda000e0443004d0059004b00003f0011"
    "8769fc1bb1d58769fc1bb07195b545a34c549f46d265d1b41398da56894dc036b9205ed95e2cc6d506db9266832ab4a9d754"
    "1734066509162949cb526c7504048e8a860314ff00411bbd225571eb54ba9cc48314af3499757865df1ca2ea1c42c5074371"
    "f5b5e16aa97766dc5cd4c1db79e5171c5580ba89b936196a604b14ff00411bbd2331877e10670efc236d8f7dab27f7a8fd17"
    "13137bee7ff17f2443018e423b42858e423b46758e423b41963908ed1fffd9";
constexpr auto kYcck =
    "ffd8ffee000e41646f626500640000000002ffdb0043000d090a0b0a080d0b0a0b0e0e0d0f13201513121213271c1e17202e"
    "2931302e292d2c333a4a3e333646372c2d405741464c4e525352323e5a615a50604a51524fffdb0043010e0e0e1311132615"
    "15264f352d354f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f"
    "4f4f4f4f4f4fffc20014080009000b04012200021101031101042200ffc40018000003010100000000000000000000000002"
    "03040005ffc4001501010100000000000000000000000000000203ffda000e040100021003100400000001152ba8e2526b3f"
    "ffc400191000020301000000000000000000000000020300013112ffda000801010001050279c14742edbdffc40015110101"
    "00000000000000000000000000000222ffda0008010201010502127fffc40017110100030000000000000000000000000001"
    "000203ffda0008010301010502dae93fffc4001a100002020300000000000000000000000001030204213134ffda00080104"
    "00010502bac020178b3dc35fffc4001a100002020300000000000000000000000000010211101261ffda0008010100063f02"
    "14b7abe0f1ffc4001511010100000000000000000000000000000011ffda0008010201063f02afffc4001511010100000000"
    "000000000000000000000021ffda0008010301063f028fffc4001b1000020105000000000000000000000000010210033132"
    "81b1ffda0008010400063f021416e7287d723fffc4001b1000020105000000000000000000000000001101213141a1c1ffda"
    "0008010100013f217ca64f3194aae9a05f3fffc40017110100030000000000000000000000000001001141ffda0008010201"
    "013f214d0d9fffc4001511010100000000000000000000000000000011ffda0008010301013f21827fffc4001c1000020202"
    "0300000000000000000000000001216111f0314151ffda0008010400013f2170e9b3355d2df2c8b06f50e33fffda000e0401"
    "00020003000400000010bc7fffc4001b1000020203010000000000000000000000000111312141a151ffda0008010100013f"
    "1073d2c494c90a8b59f4a19d43bcffc4001911010002030000000000000000000000000100314191a1ffda0008010201013f"
    "10216a7463b3ffc400161101010100000000000000000000000000110001ffda0008010301013f102da16fffc4001c100100"
    "01040300000000000000000000000100101121314181a1ffda0008010400013f1002262329594c6d6cec40711d5a8ff9e7ff"
    "d9";

class CmykJpeg : public ::testing::Test {
 protected:
  Image decoded(const std::string& bytes) const {
    write_bytes(folder_ / "picture.jpg", bytes);
    return decode_image(folder_ / "picture.jpg");
  }

  clip_lora::testing::TemporaryFolder folder_;
};

TEST_F(CmykJpeg, EqualsPillowEveryByte) {
  const Image picture = decoded(from_hex(kCmyk));
  EXPECT_EQ(picture.height, 9);
  EXPECT_EQ(picture.width, 11);
  EXPECT_EQ(crc32(picture.rgb), 0xd6b796c8);  // of Pillow 12.3's pixels
}

TEST_F(CmykJpeg, InYcckEqualsPillowEveryByte) { EXPECT_EQ(crc32(decoded(from_hex(kYcck)).rgb), 0x70794c90); }

TEST_F(CmykJpeg, ReportsATruncatedFileWhereverItEnds) {
  for (const auto& whole : {from_hex(kCmyk), from_hex(kYcck)}) {
    for (std::size_t size = 4; size < whole.size(); ++size) {
      EXPECT_THAT(message_of<DataError>([&] { decoded(whole.substr(0, size)); }), HasSubstr("truncated"))
          << size << " bytes";
    }
  }
}

TEST_F(CmykJpeg, SurvivesAnyDamagedByteAndPrintsNothing) {
  ::testing::internal::CaptureStderr();
  for (const auto& whole : {from_hex(kCmyk), from_hex(kYcck)}) {
    for (std::size_t i = 2; i < whole.size(); ++i) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ 0x15);
      try {
        decoded(damaged);
      } catch (const DataError&) {  // as good an outcome as a picture
      }
    }
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace clip_lora::image
