"""Tiny random checkpoints that write texts, saved by transformers: 60 to 120 KB each."""

import string
from pathlib import Path

import numpy as np
import torch

_SQUARE = {"height": 32, "width": 32}
_SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
_IMAGE = {**_SMALL, "image_size": 32, "patch_size": 16}
_WORDS = ("a", "an", "photo", "of", "red", "green", "cat", "dog", "on", "the", "what", "?")
_LONGEST = 48
_SPOKEN = (
    *("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>"),
    *("<|transcribe|>", "<|startofprev|>", "<|notimestamps|>"),
)


def _words(folder: Path):
    """Make a tokenizer of words and letters, such as that of BLIP and GIT."""
    from transformers import BertTokenizer

    letters = string.ascii_lowercase
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = dict.fromkeys([*special, *letters, *("##" + letter for letter in letters), *_WORDS])
    return BertTokenizer(vocab={token: i for i, token in enumerate(vocab)})


def _letter_vocabulary(*special: str) -> dict[str, int]:
    """Make the vocabulary of a byte-level tokenizer: letters, digits and the space."""
    letters = [*string.ascii_letters, *string.digits, *"#$?:.-", "\u0120", "\u010a"]
    return {token: i for i, token in enumerate([*letters, *special])}


def _random_model(make, factor: float = 4.0, *, seen: float = 3.0):
    """Make a model with weights so large that its texts differ between images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                of_image = "crossattention" in name or "vision" in name
                larger = factor * (seen if of_image else 1.0)
                weight.mul_(1.0 if "position" in name else larger)
    return model


def vit_gpt2(folder: Path) -> None:
    """Write a vision-encoder-decoder without a processor, as ViT-GPT2 is saved."""
    from transformers import (
        GPT2Config,
        GPT2Tokenizer,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessor,
    )

    vocab = _letter_vocabulary("<|endoftext|>")
    end = len(vocab) - 1
    decoder = GPT2Config(
        vocab_size=len(vocab),
        n_positions=_LONGEST,
        n_embd=16,
        n_layer=1,
        n_head=2,
        bos_token_id=end,
        eos_token_id=end,
        add_cross_attention=True,
    )
    encoder = ViTConfig(**_IMAGE)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id = config.pad_token_id = config.eos_token_id = end
    model = _random_model(lambda: VisionEncoderDecoderModel(config), 6.0)
    model.generation_config.update(decoder_start_token_id=end, pad_token_id=end, eos_token_id=end)
    model.save_pretrained(folder)
    GPT2Tokenizer(vocab=vocab, merges=[]).save_pretrained(folder)
    ViTImageProcessor(size=_SQUARE).save_pretrained(folder)


def blip(folder: Path) -> None:
    """Write a BLIP, whose decoder begins and ends a text as BERT does."""
    from transformers import (
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    words = _words(folder)
    text = {
        **_SMALL,
        "vocab_size": len(words),
        "max_position_embeddings": _LONGEST,
        "encoder_hidden_size": 16,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "pad_token_id": 0,
    }
    config = BlipConfig(text_config=text, vision_config=_IMAGE, projection_dim=16)
    model = _random_model(lambda: BlipForConditionalGeneration(config), 12.0, seen=20.0)
    model.save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size=_SQUARE), words).save_pretrained(folder)


def git(folder: Path) -> None:
    """Write a GIT, a decoder that reads patches as tokens."""
    from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor

    words = _words(folder)
    config = GitConfig(
        vision_config=_IMAGE,
        vocab_size=len(words),
        max_position_embeddings=_LONGEST,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
        **_SMALL,
    )
    _random_model(lambda: GitForCausalLM(config), 12.0, seen=1.0).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=_SQUARE)
    GitProcessor(images, words).save_pretrained(folder)


def blip2(folder: Path) -> None:
    """Write a BLIP-2, whose processor puts placeholders for the image before a prompt."""
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        BlipImageProcessor,
        GPT2Tokenizer,
        OPTConfig,
    )

    vocab = _letter_vocabulary("<|endoftext|>", "<image>")
    end = vocab["<|endoftext|>"]
    text = OPTConfig(
        vocab_size=len(vocab),
        hidden_size=16,
        word_embed_proj_dim=16,
        ffn_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=_LONGEST,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    config = Blip2Config(
        vision_config=_IMAGE,
        qformer_config={**_SMALL, "encoder_hidden_size": 16, "vocab_size": 10},
        text_config=text.to_dict(),
        num_query_tokens=4,
        image_token_index=vocab["<image>"],
    )
    model = _random_model(lambda: Blip2ForConditionalGeneration(config), 8.0)
    model.save_pretrained(folder)
    words = GPT2Tokenizer(vocab=vocab, merges=[])
    images = BlipImageProcessor(size=_SQUARE)
    Blip2Processor(images, words, num_query_tokens=4).save_pretrained(folder)


def llava(folder: Path, *, template: bool = True) -> None:
    """Write a LLaVA, whose processor has a chat template."""
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        GPT2Tokenizer,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    vocab = _letter_vocabulary("<|endoftext|>", "<image>")
    end = vocab["<|endoftext|>"]
    special = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_IMAGE, projection_dim=16),
        text_config=LlamaConfig(
            vocab_size=len(vocab), max_position_embeddings=128, **special, **_SMALL
        ),
        image_token_index=vocab["<image>"],
        vision_feature_layer=-1,
        image_seq_length=4,
    )
    model = _random_model(lambda: LlavaForConditionalGeneration(config), 6.0)
    model.generation_config.update(**special)
    model.save_pretrained(folder)
    chat = (
        "{% for message in messages %}USER: {% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
    )
    LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=_SQUARE),
        GPT2Tokenizer(vocab=vocab, merges=[], extra_special_tokens={"image_token": "<image>"}),
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=chat if template else None,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)


def whisper(folder: Path, *, languages: bool = True) -> None:
    """Write a Whisper for recordings of two seconds, in two languages or in one."""
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    vocab = _letter_vocabulary(*_SPOKEN)
    end = vocab["<|endoftext|>"]
    config = WhisperConfig(
        vocab_size=len(vocab),
        num_mel_bins=20,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_source_positions=100,
        max_target_positions=_LONGEST,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=vocab["<|startoftranscript|>"],
    )
    model = _random_model(lambda: WhisperForConditionalGeneration(config), 20.0)
    # Its config has more fields than that of others, which "update" would not set.
    settings = model.generation_config
    if languages:
        settings.lang_to_id = {token: vocab[token] for token in ("<|en|>", "<|de|>")}
        settings.task_to_id = {task: vocab[f"<|{task}|>"] for task in ("translate", "transcribe")}
        settings.is_multilingual = True
    settings.no_timestamps_token_id = vocab["<|notimestamps|>"]
    settings.suppress_tokens = [vocab[sign] for sign in "#$"]
    settings.begin_suppress_tokens = [end]
    settings.max_length = 30
    settings._from_model_config = False  # else it would be replaced by that of the model
    model.save_pretrained(folder)
    special = {f"{part}_token": "<|endoftext|>" for part in ("unk", "bos", "eos", "pad")}
    words = WhisperTokenizer(
        vocab=vocab, merges=[], additional_special_tokens=list(_SPOKEN), **special
    )
    audio_clips = WhisperFeatureExtractor(feature_size=20, chunk_length=2)
    WhisperProcessor(audio_clips, words).save_pretrained(folder)


def plain_images(n: int = 4) -> list[np.ndarray]:
    """Make images of a single color each, all of different colors."""
    colors = [(250, 0, 0), (0, 240, 10), (20, 20, 250), (250, 250, 240), (0, 0, 0)][:n]
    return [np.full((40, 30, 3), color, np.uint8) for color in colors]


def tones(n: int = 3, rate: int = 16_000) -> list[bytes]:
    """Make recordings of one second, as wav files."""
    import io

    from scipy.io import wavfile

    files = []
    for i in range(n):
        wave = np.sin(2 * np.pi * 300 * (1 + i) * np.arange(rate) / rate) * (0.2 + 0.2 * i)
        file = io.BytesIO()
        wavfile.write(file, rate, (wave * 30_000).astype(np.int16))
        files.append(file.getvalue())
    return files
