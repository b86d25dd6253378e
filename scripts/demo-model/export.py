"""Writes a trained model as a GGUF: Q8_0 (or F16) matrices, F32 norms, vocabulary, chat template.

usage: export.py OUT_DIR FILE.gguf [--f16]

Invariant: everything that a server needs is inside the file; there is no second file to keep beside it.
"""

import argparse
import json
import os

import gguf
import numpy as np
import torch

import text
from model import Shape

CONTROL, USER_DEFINED, NORMAL = gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED, gguf.TokenType.NORMAL


def _vocabulary(writer, tokenizer):
    names = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    types = [CONTROL if n in text.CONTROL else USER_DEFINED if n in text.USER_DEFINED else NORMAL for n in names]
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(names)
    writer.add_token_types(types)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(names.index("<|endoftext|>"))
    writer.add_eos_token_id(names.index("<|im_end|>"))
    writer.add_pad_token_id(names.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(text.TEMPLATE_SOURCE)


def _facts(writer, shape, kind):
    writer.add_name("Castellan Demo")
    writer.add_description("A toy language model that shows Castellan working. It knows a few dozen facts and copies tool arguments.")
    writer.add_license("apache-2.0")
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_file_type(kind)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _tensors(writer, state, half):
    for name, tensor in state.items():
        values = tensor.float().numpy()
        if tensor.dim() == 1:
            writer.add_tensor(f"{name}", values)
        elif half:
            writer.add_tensor(name, values.astype(np.float16))
        else:
            packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("file")
    parser.add_argument("--f16", action="store_true")
    args = parser.parse_args()
    state = torch.load(os.path.join(args.out, "model.pt"), weights_only=True)
    tokenizer = text.Tokenizer.from_file(os.path.join(args.out, "tokenizer.json"))
    shape = Shape(vocabulary=tokenizer.get_vocab_size())
    writer = gguf.GGUFWriter(args.file, "llama")
    _facts(writer, shape, gguf.LlamaFileType.MOSTLY_F16 if args.f16 else gguf.LlamaFileType.MOSTLY_Q8_0)
    _vocabulary(writer, tokenizer)
    _tensors(writer, state, args.f16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(args.file, os.path.getsize(args.file), "bytes")


if __name__ == "__main__":
    main()
