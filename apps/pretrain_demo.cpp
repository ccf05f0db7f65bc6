// Makes the tiny CLIP of `clip_lora demo` (apps/demo_clip.safetensors): contrastive pre-training (Radford et
// al. 2021) on painted shapes that are drawn here and on captions that describe them.
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <set>

#include "clip_lora/core/device.hpp"
#include "clip_lora/core/parallel.hpp"
#include "clip_lora/data/loader.hpp"
#include "clip_lora/data/shapes_drawing.hpp"
#include "clip_lora/engine/encoders.hpp"
#include "clip_lora/engine/optimiser.hpp"
#include "clip_lora/image/preprocess.hpp"
#include "clip_lora/io/safetensors.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "clip_lora/ops/elementwise.hpp"
#include "clip_lora/text/prompts.hpp"
#include "clip_lora/text/tokenizer.hpp"
#include "clip_lora/train/evaluate.hpp"

namespace {

using namespace clip_lora;

// The token embedding, 49,408 rows as the tokenizer wants, is most of the file: hence the narrow text tower.
const model::ClipArchitecture kArchitecture = {
    .vision = {.width = 128, .layers = 4, .mlp_width = 512, .heads = 2},
    .text = {.width = 64, .layers = 2, .mlp_width = 256, .heads = 1},
    .patch_size_px = 8,
    .image_size_px = 32,
    .context_length = 77,
    .vocabulary = text::kVocabularySize,
    .embedding = 64};
const image::Preprocessing kPreprocessing = {.size_px = 32, .resize_px = 32};
constexpr int kPictureSize = 64;       // px, cropped or scaled to the model's size
constexpr std::int64_t kWarmup = 200;  // steps
constexpr double kLargestLogitScale = 100.0;

struct Settings {
  std::string out = "apps/demo_clip.safetensors";
  std::int64_t steps = 2500;
  int batch_size = 64;
  int pictures = 8000;
  std::int64_t seed = 1;
  double learning_rate = 1e-3;
};

struct Picture {
  data::ShapeScene scene;
  image::Image image;
};

/// `count` pictures, as many of each shape.
std::vector<Picture> draw_pictures(int count, data::ShapeLook look, std::int64_t seed) {
  std::vector<Picture> pictures(static_cast<std::size_t>(count));
  parallel_for(pictures.size(), hardware_workers(), [&](std::size_t i) {
    std::seed_seq stream{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(i)};
    std::mt19937_64 generator(stream);
    pictures[i].scene =
        data::random_shape_scene(static_cast<int>(i % data::shape_class_names().size()), generator);
    pictures[i].image = data::draw_shape(pictures[i].scene, look, kPictureSize, generator);
  });
  return pictures;
}

at::Tensor as_tensor(const image::Image& view) {
  return torch::tensor(at::ArrayRef<std::uint8_t>(view.rgb)).view({view.height, view.width, 3});
}

/// The whole picture or a random view of it, half of the time each. → [B, 3, R, R]
at::Tensor random_views(const std::vector<const Picture*>& pictures, std::mt19937_64& generator) {
  std::vector<at::Tensor> views;
  for (const Picture* picture : pictures) {
    auto view = image::draw_training_view(kPictureSize, kPictureSize, generator);
    if (generator() % 2 == 0) view.box = {0, 0, kPictureSize, kPictureSize};
    views.push_back(as_tensor(image::training_view(picture->image, view, kPreprocessing)));
  }
  return data::normalise(at::stack(views), kPreprocessing, at::kCPU, at::kFloat);
}

/// What a caption tells of a picture: always the shape, sometimes its paint and paper.
struct Caption {
  data::ShapeScene scene;
  bool tells_paint = false;
  bool tells_paper = false;

  bool describes(const data::ShapeScene& other) const {
    return other.label == scene.label && (!tells_paint || other.paint == scene.paint) &&
           (!tells_paper || other.paper == scene.paper);
  }

  std::string text() const {
    std::string words = data::shape_class_names().at(static_cast<std::size_t>(scene.label));
    if (tells_paint)
      words = data::shape_colour_names().at(static_cast<std::size_t>(scene.paint)) + " " + words;
    if (tells_paper) words += " on " + data::shape_colour_names().at(static_cast<std::size_t>(scene.paper));
    return text::fill_template(text::kDefaultTemplate, words);
  }
};

/// The image-text contrastive loss of both directions. The matches of a row are all right: a caption
/// describes every picture that it is true of, not only its own.
at::Tensor contrastive_loss(model::Clip& clip, const at::Tensor& images, const model::Prompts& prompts,
                            const at::Tensor& matches) {
  const auto image_features = ops::l2_normalise(clip->encode_image(images));  // [B, E]
  const auto text_features = ops::l2_normalise(clip->encode_text(prompts));   // [B, E]
  const auto logits = clip->logit_scale.exp() * image_features.matmul(text_features.t());
  const auto by_image = at::cross_entropy_loss(logits, matches / matches.sum(1, true));
  const auto by_text = at::cross_entropy_loss(logits.t(), matches.t() / matches.t().sum(1, true));
  return (by_image + by_text) / 2;
}

class Pretraining {
 public:
  explicit Pretraining(const Settings& settings)
      : settings_(settings),
        generator_(static_cast<std::uint64_t>(settings.seed)),
        pictures_(draw_pictures(settings.pictures, data::ShapeLook::kPaint, settings.seed)),
        clip_(kArchitecture) {
    seed_everything(settings.seed);
    model::initialise(clip_);
    for (auto& parameter : clip_->parameters()) parameter.requires_grad_(true);
    // Random codes tell thirty words apart as well as learned ones do, and 49,408 rows would take most of the
    // time.
    clip_->token_embedding->weight.requires_grad_(false);
    clip_->train();
  }

  model::Clip run() {
    std::vector<at::Tensor> trained = clip_->parameters();
    std::erase_if(trained, [](const at::Tensor& parameter) { return !parameter.requires_grad(); });
    torch::optim::AdamW optimiser(trained, torch::optim::AdamWOptions().weight_decay(0.05));
    const engine::OptimiserOptions schedule{.learning_rate = settings_.learning_rate};
    for (std::int64_t step = 0; step < settings_.steps; ++step) {
      const double warmth = std::min(1.0, static_cast<double>(step + 1) / static_cast<double>(kWarmup));
      const double rate = warmth * engine::learning_rate_at(schedule, step, settings_.steps);
      optimiser.param_groups().front().options().set_lr(rate);
      optimiser.zero_grad();
      const auto loss = batch_loss();
      loss.backward();
      optimiser.step();
      const at::NoGradGuard no_grad;
      clip_->logit_scale.clamp_max_(std::log(kLargestLogitScale));
      if (step % 100 == 99) {
        std::printf("step %5ld  loss %.3f\n", static_cast<long>(step + 1), loss.item<double>());
        std::fflush(stdout);
      }
    }
    for (auto& parameter : clip_->parameters()) parameter.requires_grad_(false);
    clip_->eval();
    forget_unused_tokens();
    return clip_;
  }

 private:
  at::Tensor batch_loss() {
    std::vector<const Picture*> pictures;
    std::vector<Caption> captions;
    std::vector<std::vector<std::int64_t>> rows;
    for (int i = 0; i < settings_.batch_size; ++i) {
      pictures.push_back(&pictures_[generator_() % pictures_.size()]);
      captions.push_back({pictures.back()->scene, generator_() % 4 == 0, generator_() % 8 == 0});
      rows.push_back(tokenizer_.tokenize(captions.back().text()));
      used_tokens_.insert(rows.back().begin(), rows.back().end());
    }
    const auto matches = at::zeros({settings_.batch_size, settings_.batch_size});  // [B images, B captions]
    for (int i = 0; i < settings_.batch_size; ++i) {
      for (int j = 0; j < settings_.batch_size; ++j) {
        if (captions[static_cast<std::size_t>(j)].describes(pictures[static_cast<std::size_t>(i)]->scene)) {
          matches[i][j] = 1.0;
        }
      }
    }
    return contrastive_loss(clip_, random_views(pictures, generator_), model::make_prompts(rows), matches);
  }

  /// Rows of words that no caption has are noise: zeros instead, which compress well.
  void forget_unused_tokens() {
    const at::NoGradGuard no_grad;
    const std::vector<std::int64_t> used(used_tokens_.begin(), used_tokens_.end());
    const auto rows = torch::tensor(used);
    const auto kept = clip_->token_embedding->weight.index_select(0, rows);
    clip_->token_embedding->weight.zero_();
    clip_->token_embedding->weight.index_copy_(0, rows, kept);
  }

  Settings settings_;
  std::mt19937_64 generator_;
  std::vector<Picture> pictures_;
  text::Tokenizer tokenizer_;
  std::set<std::int64_t> used_tokens_;
  model::Clip clip_;
};

/// Zero-shot accuracy in percent on pictures that were not trained on.
double zero_shot_accuracy(model::Clip& clip, data::ShapeLook look) {
  constexpr std::int64_t kUnseenSeed = 1'000'003;
  const auto pictures = draw_pictures(1600, look, kUnseenSeed);
  std::vector<at::Tensor> views;
  std::vector<std::int64_t> labels;
  for (const Picture& picture : pictures) {
    views.push_back(as_tensor(image::evaluation_view(picture.image, kPreprocessing)));
    labels.push_back(picture.scene.label);
  }
  const auto prompts = text::class_prompts(data::shape_class_names(), {std::string(text::kDefaultTemplate)});
  const at::NoGradGuard no_grad;
  const auto features = ops::l2_normalise(
      clip->encode_image(data::normalise(at::stack(views), kPreprocessing, at::kCPU, at::kFloat)));
  const auto predicted =
      engine::classification_logits(features, train::class_features(clip, text::Tokenizer(), prompts))
          .argmax(1);
  return 100.0 * predicted.eq(torch::tensor(labels)).to(at::kDouble).mean().item<double>();
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app(
      "Pre-trains the tiny CLIP of `clip_lora demo` on painted shapes and their captions.\n"
      "apps/demo_clip.safetensors was made with the defaults (a few minutes on two cores).");
  app.add_option("--out", settings.out, "safetensors file to write")->capture_default_str();
  app.add_option("--steps", settings.steps, "training steps")->capture_default_str();
  app.add_option("--batch_size", settings.batch_size, "pictures per step")->capture_default_str();
  app.add_option("--pictures", settings.pictures, "pictures drawn in all")->capture_default_str();
  app.add_option("--lr", settings.learning_rate, "peak learning rate")->capture_default_str();
  app.add_option("--seed", settings.seed, "of the weights, the pictures and the captions")
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  auto clip = Pretraining(settings).run();
  std::printf("zero-shot, painted  %.2f %%\n", zero_shot_accuracy(clip, data::ShapeLook::kPaint));
  std::printf("zero-shot, thermal  %.2f %%\n", zero_shot_accuracy(clip, data::ShapeLook::kThermal));
  io::StateDict halves;
  for (const auto& [name, tensor] : model::state_dict(clip)) halves[name] = tensor.to(at::kHalf);
  io::write_safetensors(settings.out, halves, model::checkpoint_metadata(kArchitecture, kPreprocessing));
  std::printf("wrote %s\n", settings.out.c_str());
}
