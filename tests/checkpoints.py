"""Tiny random checkpoints, written by transformers in its own format.

Each function fills a folder with config, safetensors and tokenizer or image processor: 15 to 80 KB
in a few hundredths of a second. `build` seeds the weights, so every run tests the same models.
"""

import string
from pathlib import Path

_SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
_IMAGE = {**_SMALL, "image_size": 32, "patch_size": 8}
_SQUARE = {"height": 32, "width": 32}
_WAVE = {
    **_SMALL,
    "conv_dim": (16, 16),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
# Texts have 64 tokens at most; a word is split into letters.
_POSITIONS = 64


def bert(folder: Path) -> None:
    """Text with a class token and a pooler."""
    from transformers import BertConfig, BertModel

    n = _word_pieces(folder)
    config = BertConfig(vocab_size=n, max_position_embeddings=_POSITIONS, **_SMALL)
    BertModel(config).save_pretrained(folder)


def roberta(folder: Path) -> None:
    """Text with a position table longer than the longest text."""
    from transformers import RobertaConfig, RobertaModel

    n = _word_pieces(folder)
    options = {**_SMALL, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    config = RobertaConfig(vocab_size=n, max_position_embeddings=_POSITIONS + 1, **options)
    RobertaModel(config).save_pretrained(folder)


def gpt2(folder: Path) -> None:
    """Text without special tokens, pooler and padding token."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import GPT2Config, GPT2Model, GPT2Tokenizer

    vocab = {token: i for i, token in enumerate(["<|endoftext|>", *sorted(ByteLevel.alphabet())])}
    GPT2Tokenizer(vocab=vocab, merges=[]).save_pretrained(folder)
    config = GPT2Config(
        vocab_size=len(vocab),
        n_positions=_POSITIONS,
        n_embd=16,
        n_layer=1,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2Model(config).save_pretrained(folder)


def t5(folder: Path) -> None:
    """Text through the encoder of an encoder-decoder, with relative positions."""
    from transformers import T5Config, T5Model

    n = _word_pieces(folder)
    config = T5Config(
        vocab_size=n, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, pad_token_id=0
    )
    T5Model(config).save_pretrained(folder)


def bart(folder: Path) -> None:
    """Text through an encoder-decoder that is loaded completely."""
    from transformers import BartConfig, BartModel

    n = _word_pieces(folder)
    config = BartConfig(
        vocab_size=n,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=_POSITIONS,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        decoder_start_token_id=3,
        forced_eos_token_id=3,
    )
    BartModel(config).save_pretrained(folder)


def vit(folder: Path) -> None:
    """Images with a class token and a pooler."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    ViTModel(ViTConfig(**_IMAGE)).save_pretrained(folder)
    ViTImageProcessor(size=_SQUARE).save_pretrained(folder)


def dinov2(folder: Path) -> None:
    """Images with a class token."""
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    Dinov2Model(Dinov2Config(**_IMAGE)).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 32}, crop_size=_SQUARE).save_pretrained(folder)


def convnext(folder: Path) -> None:
    """Images through convolutions; the tokens are the last feature map."""
    from transformers import ConvNextConfig, ConvNextImageProcessor, ConvNextModel

    config = ConvNextConfig(hidden_sizes=[8, 8, 12, 16], depths=[1, 1, 1, 1], image_size=64)
    ConvNextModel(config).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 64}).save_pretrained(folder)


def resnet(folder: Path) -> None:
    """Images through convolutions; the pooled vector has two more axes."""
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    ResNetModel(config).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=1.0).save_pretrained(folder)


def swin(folder: Path) -> None:
    """Images without a class token, with a width computed by the config."""
    from transformers import SwinConfig, SwinModel, ViTImageProcessor

    config = SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4
    )
    SwinModel(config).save_pretrained(folder)
    ViTImageProcessor(size=_SQUARE).save_pretrained(folder)


def clip(folder: Path) -> None:
    """Texts and images in one space, whose width differs from both towers'."""
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        CLIPTokenizer,
    )

    letters = [*string.ascii_lowercase, *string.digits]
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>"]
    vocab = {token: i for i, token in enumerate([*tokens, "<|endoftext|>"])}
    end = len(tokens)
    text = {
        **_SMALL,
        "vocab_size": len(vocab),
        "max_position_embeddings": 24,
        "bos_token_id": end - 1,
        "eos_token_id": end,
        "pad_token_id": end,
        "projection_dim": 12,
    }
    vision = {**_IMAGE, "projection_dim": 12}
    CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    ).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=_SQUARE)
    CLIPProcessor(images, CLIPTokenizer(vocab=vocab, merges=[])).save_pretrained(folder)


def siglip(folder: Path) -> None:
    """Texts and images in one space; texts are padded to one length."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    n = _word_pieces(folder)
    text = {**_SMALL, "vocab_size": n, "max_position_embeddings": 24}
    text |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    SiglipModel(SiglipConfig(text_config=text, vision_config=_IMAGE)).save_pretrained(folder)
    SiglipImageProcessor(size=_SQUARE).save_pretrained(folder)


def videomae(folder: Path) -> None:
    """Clips of four frames in tubelets of two, without a class token."""
    from transformers import VideoMAEConfig, VideoMAEImageProcessorPil, VideoMAEModel

    config = VideoMAEConfig(num_frames=4, tubelet_size=2, **_IMAGE)
    VideoMAEModel(config).save_pretrained(folder)
    _clip_processor(VideoMAEImageProcessorPil, folder)


def timesformer(folder: Path) -> None:
    """Clips of three frames, with a class token."""
    from transformers import TimesformerConfig, TimesformerModel, VideoMAEImageProcessorPil

    TimesformerModel(TimesformerConfig(num_frames=3, **_IMAGE)).save_pretrained(folder)
    _clip_processor(VideoMAEImageProcessorPil, folder)


def _clip_processor(kind, folder: Path) -> None:
    kind(size={"shortest_edge": 32}, crop_size=_SQUARE).save_pretrained(folder)


def wav2vec2(folder: Path) -> None:
    """Raw audio, padded and masked: its convolutions normalize each frame separately."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    config = Wav2Vec2Config(feat_extract_norm="layer", **_WAVE)
    Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=16_000, return_attention_mask=True).save_pretrained(
        folder
    )


def hubert(folder: Path) -> None:
    """Raw audio that must not be padded: its first layer normalizes over time."""
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    HubertModel(HubertConfig(feat_extract_norm="group", **_WAVE)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=16_000).save_pretrained(folder)


def whisper(folder: Path) -> None:
    """Log-mel of two seconds, through the encoder of an encoder-decoder."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    config = WhisperConfig(
        vocab_size=50,
        num_mel_bins=20,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_source_positions=100,
        max_target_positions=20,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=20, chunk_length=2).save_pretrained(folder)


def ast(folder: Path) -> None:
    """Patches of a spectrogram of two seconds, after two tokens for the whole."""
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

    config = ASTConfig(
        max_length=200,
        num_mel_bins=32,
        patch_size=16,
        time_stride=10,
        frequency_stride=10,
        **_SMALL,
    )
    ASTModel(config).save_pretrained(folder)
    ASTFeatureExtractor(num_mel_bins=32, max_length=200).save_pretrained(folder)


def clap(folder: Path, fusion: bool = False) -> None:
    """Texts and audio of one second in one space, whose width differs from both towers'."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import (
        ClapConfig,
        ClapFeatureExtractor,
        ClapModel,
        ClapProcessor,
        RobertaTokenizer,
    )

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocab = {token: i for i, token in enumerate([*special, *sorted(ByteLevel.alphabet())])}
    audio = {
        "spec_size": 64,
        "num_mel_bins": 16,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "patch_embeds_hidden_size": 8,
        "hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "num_hidden_layers": 2,
        "window_size": 4,
        "enable_fusion": fusion,
        "projection_dim": 12,
        "num_classes": 2,
    }
    text = {**_SMALL, "vocab_size": 300, "max_position_embeddings": 64, "projection_dim": 12}
    config = ClapConfig(text_config=text, audio_config=audio, projection_dim=12)
    ClapModel(config).save_pretrained(folder)
    extractor = ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=16_000,
        max_length_s=1,
        fft_window_size=1024,
        hop_length=160,
        frequency_max=8_000,
        truncation="fusion" if fusion else "rand_trunc",
        padding="repeatpad",
    )
    ClapProcessor(extractor, RobertaTokenizer(vocab=vocab, merges=[])).save_pretrained(folder)


def clap_fusion(folder: Path) -> None:
    """CLAP that would read random crops of long audio."""
    clap(folder, fusion=True)


def _word_pieces(folder: Path) -> int:
    from transformers import BertTokenizer

    letters = [*string.ascii_lowercase, *string.digits]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = [*special, *letters, *("##" + letter for letter in letters)]
    BertTokenizer(vocab={token: i for i, token in enumerate(vocab)}).save_pretrained(folder)
    return len(vocab)


TEXT = {"bert": bert, "roberta": roberta, "gpt2": gpt2, "t5": t5, "bart": bart}
IMAGES = {"vit": vit, "dinov2": dinov2, "convnext": convnext, "resnet": resnet, "swin": swin}
TEXT_IMAGE = {"clip": clip, "siglip": siglip}
VIDEO = {"videomae": videomae, "timesformer": timesformer}
AUDIO = {"wav2vec2": wav2vec2, "hubert": hubert, "whisper": whisper, "ast": ast}
TEXT_AUDIO = {"clap": clap, "clap_fusion": clap_fusion}
BUILDERS = {**TEXT, **IMAGES, **TEXT_IMAGE, **VIDEO, **AUDIO, **TEXT_AUDIO}


def build(kind: str, folder: Path) -> None:
    """Write a checkpoint of a kind of `BUILDERS`; its weights are the same each time."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BUILDERS[kind](folder)
